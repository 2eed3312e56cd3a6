#!/bin/sh
# Runs every test that is built, once. Those of the lab need root: another user gets them through sudo, if it asks nothing.
#   scripts/run-tests.sh [SWIFT TEST OPTIONS]
set -u
cd "$(dirname "$0")/.."
NFV_BINARIES=${NFV_BINARIES:-$PWD/.build/release}
export NFV_BINARIES

if test "$(id -u)" = 0 || test -n "${NFV_SKIP_LAB:-}" || ! sudo -n true 2>/dev/null; then
  exec swift test --skip-build "$@"
fi
swift test --skip-build --skip LabTests "$@" || exit
exec sudo -n env "PATH=$PATH" "NFV_BINARIES=$NFV_BINARIES" swift test --skip-build --filter LabTests "$@"
