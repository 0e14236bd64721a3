# Sourced by the scripts of this folder: how they speak, and where they keep things.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
mkdir -p "$cache/log"

say() { printf '%s: %s\n' "${0##*/}" "$*"; }

# Something that the user has to put right: one line, status 2.
missing() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 2; }

# run_quietly NAME COMMAND...: all output goes to .cache/log/NAME.log, and only if the command fails is its end shown.
# Addresses are masked: a build log is often public, the package mirror of the one who built it need not be.
run_quietly() {
    local log=$cache/log/$1.log status=0
    shift
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 15 "$log" | sed -E "s#[a-z+]+://[^/[:space:]'\"]+#<mirror>#g; s#host='[^']*'#host=<mirror>#g" >&2
    fi
    return "$status"
}

# From here on one at a time in this checkout: two `make` at once must not build the same thing twice.
alone() {
    exec 9>"$cache/lock"
    ! command -v flock >/dev/null || flock 9
}
