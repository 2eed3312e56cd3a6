#!/bin/sh
# Runs every test that is built, once: first those that share a process, then the bus's in one of their own, since they
# measure what memory the process takes, then the lab's, since they need the processors for themselves. The lab needs root: another user gets it through sudo, if that asks nothing.
#   scripts/run-tests.sh [SWIFT TEST OPTIONS]
set -u
cd "$(dirname "$0")/.."
NFV_BINARIES=${NFV_BINARIES:-$PWD/.build/release}
export NFV_BINARIES

as_root=
if test "$(id -u)" != 0 && test -z "${NFV_SKIP_LAB:-}" && sudo -n true 2>/dev/null; then
  as_root="sudo -n env PATH=$PATH NFV_BINARIES=$NFV_BINARIES"
fi
code=0
swift test --disable-xctest --skip-build --skip LabTests --skip BusTests "$@" || code=$?
swift test --disable-xctest --skip-build --filter BusTests "$@" || code=$?
# shellcheck disable=SC2086
$as_root swift test --disable-xctest --skip-build --filter LabTests "$@" || code=$?
exit "$code"
