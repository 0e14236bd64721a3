#!/bin/bash
# Make (or bring up to date) .venv with exactly what requirements-dev.lock names, and the project itself, editable.
#   make_venv.sh [PYTHON]        PYTHON: the interpreter to build it with, default python3
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/common.sh"
python=${1:-python3}
cd "$root"
alone

command -v "$python" >/dev/null || missing "$python is not on PATH; Python 3.11 or newer is needed (Debian: apt-get install python3 python3-venv)"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || missing "$python does not run"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    missing "$python is Python $version, but 3.11 or newer is needed; name another one with: make PYTHON=/path/to/python3.11 ..."

# A .venv of another Python, one that was copied here from elsewhere, or one half made is made anew.
if [ -e .venv ] && ! { [ "$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.prefix)' 2>/dev/null)" = "$version $root/.venv" ] &&
    .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    rm -rf .venv
fi
if [ ! -e .venv ]; then
    say "making .venv with Python $version"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        run_quietly venv "$python" -m venv .venv || missing "could not make .venv (see .cache/log/venv.log)"
    else
        # Debian keeps ensurepip in a package of its own (python3-venv); a pip outside can put one inside as well.
        "$python" -m pip --version >/dev/null 2>&1 ||
            missing "$python has neither the venv module's ensurepip nor pip (Debian: apt-get install python3-venv)"
        run_quietly venv "$python" -m venv --without-pip .venv || missing "could not make .venv (see .cache/log/venv.log)"
        run_quietly venv "$python" -m pip --python .venv/bin/python install pip ||
            missing "could not install pip into .venv (see .cache/log/venv.log)"
    fi
fi

pip() { run_quietly pip .venv/bin/python -m pip --disable-pip-version-check install "$@"; }
say "installing what requirements-dev.lock names"
# The lock is complete. Left to resolve, an old pip asks the index for an extra's newest version, which has no hash here.
pip --no-deps --require-hashes --only-binary :all: -r requirements-dev.lock || missing "could not install requirements-dev.lock (see .cache/log/pip.log)"
pip --no-deps --no-build-isolation --editable . || missing "could not install the project itself (see .cache/log/pip.log)"
