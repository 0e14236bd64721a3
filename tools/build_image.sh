#!/usr/bin/env bash
# Builds the Dockerfile where there is neither a Docker engine nor an image registry, to check that it builds and runs.
#
#   tools/build_image.sh [TAG] [PYTHON_IMAGE]      default: localhost/cancel-worker:check and the Dockerfile's own base
#
# The base is made from Debian packages, once, under the name that the Dockerfile's FROM asks for. It is a stand-in
# (Debian's Python), and the names of this machine's package mirror are in it: check with the result, never publish it.
# Images are kept under .cache/containers; `tools/build_image.sh` prints the options that buildah and podman need to
# find them. Needs root, buildah and mmdebstrap (Debian: apt-get install --no-install-recommends buildah mmdebstrap).
# Exit status: 0 built, 1 failed, 2 something is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tag=${1:-localhost/cancel-worker:check}
base=${2:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' "$root/Dockerfile")}
suite=${base##*-}
ca=/etc/ssl/certs/ca-certificates.crt

for program in buildah mmdebstrap; do
    command -v "$program" >/dev/null || { echo "build_image: $program is not installed" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "build_image: needs root" >&2; exit 2; }

store=$root/.cache/containers
mkdir -p "$store"
exec 9>"$store/lock"  # one at a time: two test processes must not make the same base twice
flock 9
options=(--root "$store/root" --runroot "$store/run" --storage-driver overlay)
scratch=$(mktemp -d "$store/base.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

if ! buildah "${options[@]}" inspect --type image "$base" >/dev/null 2>&1; then
    sources=/etc/apt/sources.list.d/debian.sources
    [ -f "$sources" ] || { echo "build_image: $sources is missing: not a Debian machine?" >&2; exit 2; }
    sed "s/bookworm/$suite/g" "$sources" > "$scratch/debian.sources"
    # The expressions in single quotes are mmdebstrap's to expand: $1 is the new root.
    # shellcheck disable=SC2016
    mmdebstrap --quiet --mode=root --variant=minbase \
        --include=ca-certificates,netbase,tzdata,python3,python3-pip,python3-venv \
        --setup-hook='mkdir -p "$1/etc/apt/apt.conf.d"' \
        --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
        --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python3"' \
        --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/usr/share/doc/* "$1"/usr/share/man/*' \
        "$suite" "$scratch/base.tar" "$scratch/debian.sources"
    container=$(buildah "${options[@]}" from --pull-never scratch)
    buildah "${options[@]}" add --quiet "$container" "$scratch/base.tar" / >/dev/null
    buildah "${options[@]}" config --env LANG=C.UTF-8 --cmd '["python3"]' \
        --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah "${options[@]}" commit --quiet --rm "$container" "$base" >/dev/null
fi

# Chroot isolation runs without privileges of a container engine; --pull-never: a base that is not here fails at once.
buildah "${options[@]}" build --format docker --isolation chroot --pull-never --network host --layers \
    --volume "$ca:$ca:ro" --build-arg "PYTHON_IMAGE=$base" --tag "$tag" "$root"
echo "built $tag: buildah|podman ${options[*]} ..."
