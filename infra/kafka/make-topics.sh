#!/bin/sh
# Makes the topics of topics.conf on a Kafka, with the settings that infra/README.md gives reasons for; those that are there
# are left as they are. `nfvctl topics create --replication 3` does the same without Kafka's tools.
#
#   infra/kafka/make-topics.sh                                     on the compose file's brokers
#   KAFKA_BIN=/opt/kafka/bin NFV_BOOTSTRAP=kafka-1:9092 infra/kafka/make-topics.sh
#
# NFV_REPLICATION (3), NFV_PARTITIONS (64: the directory and 63 clusters), NFV_KAFKA_COMMAND_CONFIG (a properties file with
# TLS and SASL), NFV_DRY_RUN=1 (only prints the commands).
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=infra/kafka/tools.sh
. "$folder/tools.sh"
replication=${NFV_REPLICATION:-3}
in_sync=$((replication > 1 ? replication - 1 : 1))

grep -v '^#' "$folder/topics.conf" | while read -r topic retention; do
  kafka_tool kafka-topics.sh --create --if-not-exists --topic "$topic" --partitions "${NFV_PARTITIONS:-64}" \
    --replication-factor "$replication" --config "retention.ms=$retention" --config "min.insync.replicas=$in_sync" \
    --config message.timestamp.type=LogAppendTime --config cleanup.policy=delete \
    --config unclean.leader.election.enable=false
done
