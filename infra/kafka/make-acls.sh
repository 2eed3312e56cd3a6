#!/bin/sh
# Gives each kind of program the least that it needs on a Kafka with an authorizer; everything else is denied.
#
#   KAFKA_BIN=/opt/kafka/bin NFV_BOOTSTRAP=kafka-1:9093 NFV_KAFKA_COMMAND_CONFIG=admin.properties infra/kafka/make-acls.sh
#
# The principals are User:nfv-node (runtimes, switches), nfv-agent, nfv-coordinator, nfv-operator (nfvctl apply) and
# nfv-auditor (nfvctl's tools that only read); NFV_PRINCIPAL_PREFIX changes the prefix `User:nfv-`. NFV_DRY_RUN=1 only prints.
# Run it again after a change: what is there is left as it is.
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=infra/kafka/tools.sh
. "$folder/tools.sh"
prefix=${NFV_PRINCIPAL_PREFIX:-User:nfv-}

# allow WHO WHAT TOPIC...
allow() {
  who=$prefix$1
  what=$2
  shift 2
  for topic in "$@"; do
    kafka_tool kafka-acls.sh --add --allow-principal "$who" --operation "$what" --operation Describe --topic "$topic" \
      --resource-pattern-type literal
  done
}

# A runtime that was taken over can lie about itself and nothing else: it cannot give commands.
allow node Write nfv.events
allow node Read nfv.commands
# An agent also reads the directory, a partition of the events, to know which clusters there are.
allow agent Write nfv.events
allow agent Read nfv.events nfv.commands
# Replicas alone give commands.
allow coordinator Write nfv.events nfv.commands nfv.snapshots nfv.audit nfv.dead-letters
allow coordinator Read nfv.events nfv.commands nfv.snapshots nfv.dead-letters
# An operator says what is wanted, and that a dead letter is dealt with.
allow operator Write nfv.events nfv.dead-letters
allow operator Read nfv.events nfv.commands nfv.snapshots nfv.audit nfv.dead-letters
allow auditor Read nfv.events nfv.commands nfv.snapshots nfv.audit nfv.dead-letters

# Brokers before 2.8 ask for this of every idempotent producer.
for who in node agent coordinator operator; do
  kafka_tool kafka-acls.sh --add --allow-principal "$prefix$who" --operation IdempotentWrite --cluster
done
