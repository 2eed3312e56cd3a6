#!/bin/sh
# Makes the topics of the control plane on a Kafka, with the settings that infra/README.md gives reasons for.
#
# Runs kafka-topics.sh of the compose file's broker, or that of KAFKA_BIN for a Kafka of your own:
#   BOOTSTRAP=kafka1:9092 REPLICATION=3 KAFKA_BIN=/opt/kafka/bin infra/kafka/make-topics.sh
set -eu
cd "$(dirname "$0")"
bootstrap=${BOOTSTRAP:-127.0.0.1:9092}
replication=${REPLICATION:-1}
in_sync=$((replication > 1 ? replication - 1 : 1))
day=86400000

topics() {
  if test -n "${KAFKA_BIN:-}"; then "$KAFKA_BIN/kafka-topics.sh" "$@"; else
    docker compose -f compose.yaml exec -T kafka /opt/kafka/bin/kafka-topics.sh "$@"
  fi
}

while read -r topic retention; do
  topics --bootstrap-server "$bootstrap" --create --if-not-exists --topic "$topic" --partitions 64 \
    --replication-factor "$replication" --config "retention.ms=$retention" --config "min.insync.replicas=$in_sync" \
    --config message.timestamp.type=LogAppendTime --config cleanup.policy=delete \
    --config unclean.leader.election.enable=false </dev/null
done <<TOPICS
nfv.events $((7 * day))
nfv.commands -1
nfv.snapshots $((7 * day))
nfv.audit -1
nfv.dead-letters $((90 * day))
TOPICS
