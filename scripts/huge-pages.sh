#!/bin/sh
# Sets aside 2 MB pages for packet memory: packets and flow tables then cost fewer TLB misses.
#
# Never lowers what is there, and never fails: without huge pages everything runs on ordinary ones.
#   scripts/huge-pages.sh [PAGES]
set -u
wanted=${1:-256}
setting=/proc/sys/vm/nr_hugepages
mount_point=/dev/hugepages

without() {
  echo "Huge pages: $1; going on with ordinary pages."
  exit 0
}

as_root() { if test "$(id -u)" = 0; then "$@"; else sudo -n "$@"; fi; }

test -r "$setting" || without "this kernel has none"
have=$(cat "$setting")
if test "$have" -lt "$wanted"; then
  echo "$wanted" | as_root tee "$setting" >/dev/null 2>&1 || without "not allowed to set aside $wanted (there are $have)"
  have=$(cat "$setting")
  test "$have" -gt 0 || without "no memory for them"
  test "$have" -ge "$wanted" || echo "Huge pages: only $have of $wanted could be set aside."
fi
if ! grep -q ' hugetlbfs ' /proc/mounts; then
  as_root mkdir -p "$mount_point" 2>/dev/null && as_root mount -t hugetlbfs nodev "$mount_point" 2>/dev/null ||
    without "hugetlbfs cannot be mounted"
fi
