#!/usr/bin/env bash
# Runs one of Kafka's own tools. Usage: kafka-tool.sh PORT CLASS [ARGUMENT ...], like kafka-tool.sh 9092 kafka.admin.ConfigCommand --alter --entity-type topics --entity-name t --add-config min.insync.replicas=1
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
installed kafka
port=$1 class=$2
shift 2
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$here/kafka:$PEERS/kafka/lib/*" "$class" --bootstrap-server "127.0.0.1:$port" "$@"
