#!/bin/bash
# Find promtool for the tests of metrics and alert rules; where there is none, take Debian's into .cache/promtool (48 MB, no
# root). Looked for on PATH first. tests/conftest.py looks in the same places, and skips those tests where it is in neither.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/common.sh"
place=$cache/promtool

! command -v promtool >/dev/null || exit 0
alone
[ ! -x "$place/promtool" ] || exit 0

say "taking promtool out of Debian's prometheus into .cache/promtool"
part=$place.part
rm -rf "$part"
trap 'rm -rf "$part"' EXIT
# '^$': none of its dependencies. They are for the server's pages; promtool itself needs only the C library.
"$root/tools/unpack_debian.sh" "$part" '^$' prometheus || missing "no promtool: the tests that need it are skipped (Debian: apt-get install prometheus)"
"$part/usr/bin/promtool" --version >/dev/null 2>&1 || missing "Debian's promtool does not run on this machine: the tests that need it are skipped"
mkdir -p "$place"
mv "$part/usr/bin/promtool" "$place/promtool"
