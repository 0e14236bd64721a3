#!/bin/bash
# Find a RabbitMQ for the demo and the tests; where there is none, unpack Debian's into .cache/rabbitmq (58 MB, no root).
# Looked for in this order: CANCEL_WORKER_TEST_BROKER (a running server: nothing to fetch), CANCEL_WORKER_RABBITMQ (a folder
# that holds usr/lib/rabbitmq), .cache/rabbitmq, /usr/lib/rabbitmq. worker/demo/node.py looks in the same places.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/common.sh"
place=$cache/rabbitmq

if [ -n "${CANCEL_WORKER_TEST_BROKER:-}" ]; then
    say "using the server that CANCEL_WORKER_TEST_BROKER names"
    exit
fi
if [ -n "${CANCEL_WORKER_RABBITMQ:-}" ]; then
    [ -x "$CANCEL_WORKER_RABBITMQ/usr/lib/rabbitmq/bin/rabbitmq-server" ] ||
        missing "CANCEL_WORKER_RABBITMQ is $CANCEL_WORKER_RABBITMQ, which has no usr/lib/rabbitmq/bin/rabbitmq-server"
    exit
fi
alone
[ ! -x "$place/usr/lib/rabbitmq/bin/rabbitmq-server" ] || exit 0
[ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || exit 0

say "unpacking RabbitMQ into .cache/rabbitmq"
part=$place.part
rm -rf "$part"
"$root/tools/unpack_debian.sh" "$part" 'erlang-[a-z0-9-]+' rabbitmq-server ||
    missing "no RabbitMQ: install rabbitmq-server, or set CANCEL_WORKER_TEST_BROKER to the amqp:// address of a running one"
# Debian's erl knows only /usr/lib/erlang; let it ask where it lies itself, so that the checkout may be moved.
# shellcheck disable=SC2016    # expanded by erl, not here
sed -i 's#^\( *ROOTDIR\)=/usr/lib/erlang$#\1=$(readlink -f "$(dirname "$(readlink -f "$0")")/..")#' "$part/usr/lib/erlang/bin/erl"
version=$(PATH=$part/usr/lib/erlang/bin:$PATH erl -noshell -eval \
    '{ok, _} = application:ensure_all_started(crypto), io:format("~s", [erlang:system_info(otp_release)]), halt().') ||
    missing "the unpacked Erlang does not run on this machine (missing libraries?); install rabbitmq-server instead"
rm -rf "$place"
mv "$part" "$place"
say "$(basename "$(echo "$place"/usr/lib/rabbitmq/lib/rabbitmq_server-*)") on Erlang $version"
