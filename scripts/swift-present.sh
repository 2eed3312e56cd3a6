#!/bin/sh
# Says what to do when there is no Swift, or one that is too old for the manifest.
set -u
wanted=6.1
command -v swift >/dev/null 2>&1 || {
  echo "There is no Swift here. Install $wanted or later from https://www.swift.org/install/linux/ and put 'swift' on the PATH." >&2
  exit 69
}
found=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9][0-9.]*\).*/\1/p' | head -n 1)
test "$(printf '%s\n%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1)" = "$wanted" || {
  echo "Swift $found is too old: NFVactor needs $wanted or later (https://www.swift.org/install/linux/)." >&2
  exit 69
}
