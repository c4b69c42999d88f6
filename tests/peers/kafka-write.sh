#!/usr/bin/env bash
# Writes each line of stdin as a record, with Kafka's own tool. Usage: kafka-write.sh PORT TOPIC
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
installed kafka
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$here/kafka:$PEERS/kafka/lib/*" kafka.tools.ConsoleProducer \
  --bootstrap-server "127.0.0.1:$1" --topic "$2" --request-required-acks all
