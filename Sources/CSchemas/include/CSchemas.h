// Written by schemas/generate.sh.
#pragma once
#include "common.pb-c.h"
#include "events.pb-c.h"
#include "commands.pb-c.h"
#include "dead_letters.pb-c.h"
#include "snapshots.pb-c.h"
