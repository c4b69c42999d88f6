#!/usr/bin/env bash
# Creates a topic with Kafka's own tool. Usage: kafka-topic.sh PORT TOPIC PARTITIONS [config=value ...]   env: REPLICAS (1)
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
installed kafka
port=$1 topic=$2 partitions=$3
shift 3
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$here/kafka:$PEERS/kafka/lib/*" org.apache.kafka.tools.TopicCommand \
  --bootstrap-server "127.0.0.1:$port" --create --topic "$topic" --partitions "$partitions" --replication-factor "${REPLICAS:-1}" "${@/#/--config=}"
