#!/bin/bash
# Build what the benchmarks need into .cache/bench: the programs in C, the Go peer, and environments for the Node and Python
# peers. A peer whose tools are missing is left out, with a line that says what to install. Never part of `make test`.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../tools/common.sh"
place=$cache/bench
here=$root/bench
gocode=/usr/share/gocode/src/github.com
mkdir -p "$place"
alone

newer() { # newer TARGET SOURCE...: the target is there and no source was changed after it
    local target=$1 source
    shift
    [ -e "$target" ] || return 1
    for source in "$@"; do [ "$target" -nt "$source" ] || return 1; done
}

command -v gcc >/dev/null || missing "gcc is needed (Debian: apt-get install gcc libc6-dev)"
for program in venue load worker; do
    newer "$place/$program" "$here"/c/* ||
        gcc -O2 -Wall -Wextra -Werror -pthread -o "$place/$program" "$here/c/$program.c"
done

if ! newer "$place/python/.done" "$here/peers/requirements.lock"; then
    say "making an environment for the Python peers"
    rm -rf "$place/python"
    run_quietly bench-python "$root/.venv/bin/python" -m venv "$place/python"
    run_quietly bench-python "$place/python/bin/python" -m pip --disable-pip-version-check install --no-deps --require-hashes \
        --only-binary :all: -r "$here/peers/requirements.lock"
    touch "$place/python/.done"
fi

if ! command -v npm >/dev/null; then
    say "no npm: without the Node peer (Debian: apt-get install nodejs npm)"
elif ! newer "$place/node/.done" "$here"/peers/node/{package.json,package-lock.json,.npmrc,worker.js}; then
    say "making an environment for the Node peer"
    mkdir -p "$place/node"
    cp "$here"/peers/node/{package.json,package-lock.json,.npmrc,worker.js} "$place/node"
    run_quietly bench-node npm --prefix "$place/node" ci --no-fund --no-audit
    touch "$place/node/.done"
fi

if ! command -v go >/dev/null || [ ! -d $gocode/rabbitmq/amqp091-go ] || [ ! -d $gocode/gorilla/websocket ]; then
    say "no Go or not its libraries: without the Go peer (Debian: apt-get install golang-go" \
        "golang-github-rabbitmq-amqp091-go-dev golang-github-gorilla-websocket-dev)"
elif ! newer "$place/go-worker" "$here/peers/go/main.go"; then
    say "building the Go peer"
    GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$place/go-cache run_quietly bench-go \
        go build -o "$place/go-worker" "$here/peers/go/main.go"
fi
