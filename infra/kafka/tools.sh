#!/bin/sh
# Finds Kafka's own tools, for the scripts beside this one, which read it in: those in KAFKA_BIN, or those inside the compose
# file's first broker. Sets `bootstrap`, and `with`, the tools' options for authentication.
bootstrap=${NFV_BOOTSTRAP:-127.0.0.1:9092}
with=${NFV_KAFKA_COMMAND_CONFIG:+--command-config $NFV_KAFKA_COMMAND_CONFIG}

# kafka_tool NAME OPTIONS...
kafka_tool() {
  tool=$1
  shift
  # shellcheck disable=SC2086
  if test -n "${NFV_DRY_RUN:-}"; then
    echo "$tool" --bootstrap-server "$bootstrap" $with "$@"
  elif test -n "${KAFKA_BIN:-}"; then
    "$KAFKA_BIN/$tool" --bootstrap-server "$bootstrap" $with "$@" </dev/null
  else
    # Inside, the broker has another address.
    docker compose -f "${folder:?}/compose.yaml" exec -T kafka-1 "/opt/kafka/bin/$tool" --bootstrap-server kafka-1:19092 $with "$@" </dev/null
  fi
}
