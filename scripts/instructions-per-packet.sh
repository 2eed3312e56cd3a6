#!/bin/sh
# Counts the instructions that the worker spends on a packet (callgrind), and where; fails when the runtime library of Swift
# or the allocator is called for packets: a retain, a release, an allocation or an exclusivity check on the packet path is a
# thing that comes back unnoticed.
#
#   scripts/instructions-per-packet.sh [instructions|instructions-opening|instructions-c-loop|instructions-opening-c-loop]
#   scripts/instructions-per-packet.sh instructions-migration      per flow that moves; nothing fails
#
# The counts are the same in every run. Build the benchmarks first (make bench-instructions does).
set -eu

benchmark=${1:-instructions}
program=$(dirname "$0")/../Benchmarks/.build/release/Benchmarks
# Calls per packet from which a function is said to be called for packets, or for flows, of which every tenth packet opens one:
# once per burst is 0.03, and there are seven of those. What moving a flow calls is told, and not judged yet.
case $benchmark in
  instructions-migration) most=1000 ;;
  *) most=0.25 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Valgrind does not read the debug information of Swift's compiler; names of functions are enough.
strip --strip-debug -o "$folder/Benchmarks" "$program"
BENCH=$benchmark valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$folder/out" \
  "$folder/Benchmarks" >"$folder/said" 2>"$folder/errors" || {
  cat "$folder/said" "$folder/errors" >&2
  exit 1
}
packets=$(sed -n 's/^[a-z]*: //p' "$folder/said")
what=$(sed -n 's/^\([a-z]*\)s: .*/\1/p' "$folder/said")
echo "$benchmark: $packets ${what}s"

# Lines of the profile: "fn=(id) name" opens a function, "cfn=(id) name" a call from it, "calls=n ..." says how often, the
# line behind that what the call cost in all; any other line of numbers is the function's own cost. A name comes once.
awk -v packets="$packets" -v what="$what" -v most="$most" '
  function name(text,   id) {
    id = text; sub(/^[^(]*/, "", id); sub(/\).*/, ")", id)
    if (match(text, /\) ./)) names[id] = substr(text, RSTART + 2)
    return id
  }
  /^fn=/ { function_ = name($0); next }
  /^cfn=/ { callee = name($0); next }
  /^calls=/ { split($1, part, "="); calls[callee] += part[2]; skip = 1; next }
  /^[0-9+*-]/ { if (skip) skip = 0; else own[function_] += $2 }
  END {
    for (id in own) total += own[id]
    printf "%.1f instructions per %s, of which in\n", total / packets, what
    for (id in own) if (own[id] / total > 0.01) printf "%8.1f  %s\n", own[id] / packets, names[id] | "sort -rn"
    close("sort -rn")
    for (id in calls) if (names[id] ~ /^(swift_(retain|release|bridgeObject|alloc|dealloc|begin|slow)|malloc|calloc|realloc|posix_memalign|aligned_alloc|free)/) {
      rate = calls[id] / packets
      if (rate >= 0.001) printf "%8.3f calls per %s of %s\n", rate, what, names[id]
      if (rate >= most) bad = bad " " names[id]
    }
    if (bad != "") { printf "called for every %s:%s\n", what, bad; exit 1 }
  }' "$folder/out" >"$folder/table" || verdict=1
if command -v swift >/dev/null; then swift demangle --simplified <"$folder/table"; else cat "$folder/table"; fi
exit ${verdict:-0}
