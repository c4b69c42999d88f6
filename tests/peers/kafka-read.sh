#!/usr/bin/env bash
# Reads COUNT committed records of a topic with Kafka's Java client, a JSON object a line; exit 3 when fewer arrive. Usage: kafka-read.sh PORT TOPIC COUNT [TIMEOUT_SECONDS, default 20]
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
installed kafka
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$here/kafka:$PEERS/kafka/classes:$PEERS/kafka/lib/*" Read "$1" "$2" "$3" "${4:-20}"
