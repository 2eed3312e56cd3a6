#!/bin/sh
# Writes Sources/CSchemas from the schemas, or a given folder, with the layout of that target; and the schemas' descriptors,
# which `nfvctl schema check` compares, to schemas/nfvactor.binpb or the given file.
#   schemas/generate.sh [FOLDER [DESCRIPTORS]]
set -eu
schemas=$(cd "$(dirname "$0")" && pwd)
target=${1:-$schemas/../Sources/CSchemas}
descriptors=${2:-$schemas/nfvactor.binpb}
command -v protoc-c >/dev/null || { echo "protoc-c is missing: apt-get install protobuf-c-compiler" >&2; exit 69; }
mkdir -p "$target/include"
cd "$schemas"
protoc-c --c_out="$target" --descriptor_set_out="$descriptors" common.proto events.proto commands.proto dead_letters.proto snapshots.proto
mv "$target"/*.pb-c.h "$target/include/"
cat > "$target/include/CSchemas.h" <<'HEADER'
// Written by schemas/generate.sh.
#pragma once
#include "common.pb-c.h"
#include "events.pb-c.h"
#include "commands.pb-c.h"
#include "dead_letters.pb-c.h"
#include "snapshots.pb-c.h"
HEADER
