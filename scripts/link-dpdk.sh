#!/bin/sh
# Points Sources/CDPDK/sys/dpdk-arch at this machine's DPDK configuration header.
#
# Debian keeps it in a folder per architecture, and SwiftPM only takes header paths inside the package. The link that
# is committed is that of x86-64; on another machine git is told not to mind the difference.
set -eu
cd "$(dirname "$0")/.."
link=Sources/CDPDK/sys/dpdk-arch
case $(uname -m) in
  x86_64) triplet=x86_64-linux-gnu ;;
  aarch64) triplet=aarch64-linux-gnu ;;
  *)
    echo "NFVactor builds on x86_64 and aarch64, not on $(uname -m)." >&2
    exit 69
    ;;
esac
wanted=/usr/include/$triplet/dpdk
test "$(readlink "$link")" = "$wanted" && exit 0
ln -sfn "$wanted" "$link"
if git ls-files --error-unmatch "$link" >/dev/null 2>&1; then git update-index --skip-worktree "$link"; fi
