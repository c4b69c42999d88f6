#!/usr/bin/env bash
# Runs Apache Kafka (KRaft, one node, loopback) in the foreground. Usage: kafka.sh DIR PORT [CONTROLLER_PORT, default PORT+1]   env: KAFKA_HEAP (256m), KAFKA_PROPS (more lines for server.properties)
# Storage in DIR/data is formatted only when new, so a restart after kill -9 keeps the records. Topics are never created on their own.
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
installed kafka
dir=$(absolute "$1")
port=$2
controller=${3:-$((port + 1))}
cat > "$dir/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=8388608
${KAFKA_PROPS:-}
P
java=(java "-Xms${KAFKA_HEAP:-256m}" "-Xmx${KAFKA_HEAP:-256m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto
  -Djava.awt.headless=true -cp "$here/kafka:$PEERS/kafka/lib/*")
if [ ! -e "$dir/data/meta.properties" ]; then
  # Only letters and digits: an id that begins with a dash is taken for an option.
  "${java[@]}" kafka.tools.StorageTool format -t "$(head -c 16 /dev/urandom | base64 | tr '+/' AB | tr -d =)" -c "$dir/server.properties" >&2
fi
exec "${java[@]}" kafka.Kafka "$dir/server.properties"
