#!/bin/bash
# Unpack Debian packages, and those they depend on, under PREFIX: no root needed, nothing of the system is touched.
#   unpack_debian.sh PREFIX DEPENDENCY-PATTERN PACKAGE...
# Of the dependencies only those whose whole name matches the (extended) pattern are taken.
# Package lists are the system's if it has any and they are fresh enough, else lists of our own under .cache/apt.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/common.sh"
prefix=${1:?prefix} pattern=${2:?dependency pattern}
shift 2

for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || missing "no $tool on this machine (it is not Debian or a relative of it), so $1 has to be installed by hand"
done
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
work=$(mktemp -d "$cache/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT

own_lists=(-o "Dir::State::lists=$cache/apt/lists" -o "Dir::Cache=$cache/apt/cache" -o Debug::NoLocking=1)
[ "$(id -u)" -ne 0 ] || own_lists+=(-o APT::Sandbox::User=root)

fetch() {          # fetch APT-OPTION...: every package into $work
    local wanted
    apt-cache "$@" show "${packages[@]}" || return 1
    wanted=$(apt-cache "$@" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        "${packages[@]}" | grep -Ex "$pattern" | sort -u)
    # shellcheck disable=SC2086    # one word per package
    (cd "$work" && apt-get "$@" download "${packages[@]}" $wanted)
}

packages=("$@")
if ! fetch -o Debug::NoLocking=1 >"$cache/log/apt.log" 2>&1 </dev/null; then
    say "reading Debian's package lists"
    rm -rf "$work"/*.deb "$cache/apt"
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
    run_quietly apt apt-get "${own_lists[@]}" update || missing "could not read Debian's package lists (see .cache/log/apt.log)"
    run_quietly apt fetch "${own_lists[@]}" || missing "could not fetch ${packages[*]} (see .cache/log/apt.log)"
    rm -rf "$cache/apt"
fi
for package in "$work"/*.deb; do dpkg-deb --extract "$package" "$prefix"; done
