# The worker's image: Python, what requirements.lock names, the project's wheel, and the files of config/.
# Everything it runs as: user 10001, no capabilities needed, nothing written to the root file system, no program in it
# that runs as another user than the one who starts it.
# Build arguments: PYTHON_IMAGE (the base, pin it by digest for a release), REVISION (the commit, for label and metrics).
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# Hashes of every package, the build backend's too; no compiler here, so wheels only. pip stays out of the result.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/cancel-worker \
    && python -m pip --python /opt/cancel-worker/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-deps --require-hashes --only-binary :all: -r requirements.lock \
    && python -m venv --without-pip /opt/build \
    && python -m pip --python /opt/build/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-deps --require-hashes --only-binary :all: -r requirements-build.lock
# The * lets README.md be missing: only a `readme` in pyproject.toml makes the build need it.
COPY pyproject.toml LICENSE README.md* ./
COPY worker ./worker
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /wheels \
    && python -m pip --python /opt/cancel-worker/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-index --no-deps /wheels/cancel_worker-*.whl

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 cancel-worker \
    && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin cancel-worker \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=build /opt/cancel-worker /opt/cancel-worker
# By name: a file of one's own beside them may hold a secret, and everybody can read what is in an image.
COPY --chmod=0644 config/default.toml config/demo.toml config/production.toml config/sandbox.toml config/simulator.toml \
    /etc/cancel-worker/
ARG REVISION=unknown
ENV PATH=/opt/cancel-worker/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CANCEL_WORKER_CONFIG=/etc/cancel-worker/default.toml \
    CANCEL_WORKER_COMMIT="${REVISION}"
LABEL org.opencontainers.image.title="cancel-worker" \
    org.opencontainers.image.description="Carries out order cancels taken from RabbitMQ at Kraken Prime" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.revision="${REVISION}"
WORKDIR /
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; link = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('CANCEL_WORKER__OPS__PORT', '8080')), timeout=3); link.request('GET', '/livez'); sys.exit(link.getresponse().status != 200)"]
# Exec form: the worker is process 1 and gets the signals itself.
ENTRYPOINT ["cancel-worker"]
CMD ["run"]
