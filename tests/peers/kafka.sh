#!/usr/bin/env bash
# Runs a node of Apache Kafka (KRaft, loopback) in the foreground. Usage: kafka.sh DIR PORT [CONTROLLER_PORT, default PORT+1] [SASL_PORT TLS_PORT SASL_TLS_PORT]   env: KAFKA_HEAP (256m), KAFKA_PROPS (more lines for server.properties), KAFKA_PASSWORD, KAFKA_CLUSTER (id of the cluster, of letters and digits), KAFKA_NODE (1)
# KAFKA_NODE=2 joins the cluster of the node whose CONTROLLER_PORT and KAFKA_CLUSTER it is given, as a broker only.
# With three more ports: user `relay` by PLAIN, SCRAM-SHA-256 and -512 with KAFKA_PASSWORD, and by unsigned OAUTHBEARER tokens; TLS that wants the certificate `client` of DIR/certs; both; and ACLs.
# Storage in DIR/data is formatted only when new, so a restart after kill -9 keeps the records. Topics are never created on their own.
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
installed kafka
dir=$(absolute "$1")
port=$2
controller=${3:-$((port + 1))}
node=${KAFKA_NODE:-1} roles=broker,controller listens=,CONTROLLER://127.0.0.1:$controller
if [ "$node" -gt 1 ]; then roles=broker listens=''; fi
more='' protocols='' secured='' scram=()
if [ $# -gt 3 ]; then
  "$here/certs.sh" "$dir/certs"
  cat "$dir/certs/server.key" "$dir/certs/server.pem" > "$dir/certs/server-both.pem"
  more=",SASL://127.0.0.1:$4,TLS://127.0.0.1:$5,SASLTLS://127.0.0.1:$6"
  protocols=,SASL:SASL_PLAINTEXT,TLS:SSL,SASLTLS:SASL_SSL
  scram=(--add-scram "SCRAM-SHA-256=[name=relay,password=$KAFKA_PASSWORD]" --add-scram "SCRAM-SHA-512=[name=relay,password=$KAFKA_PASSWORD]")
  login=org.apache.kafka.common.security
  secured="sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
ssl.keystore.type=PEM
ssl.keystore.location=$dir/certs/server-both.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/certs/ca.pem
listener.name.tls.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:ANONYMOUS"
  for listener in sasl sasltls; do
    secured+="
listener.name.$listener.plain.sasl.jaas.config=$login.plain.PlainLoginModule required user_relay=\"$KAFKA_PASSWORD\";
listener.name.$listener.scram-sha-256.sasl.jaas.config=$login.scram.ScramLoginModule required;
listener.name.$listener.scram-sha-512.sasl.jaas.config=$login.scram.ScramLoginModule required;
listener.name.$listener.oauthbearer.sasl.jaas.config=$login.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
  done
fi
cat > "$dir/server.properties" <<P
process.roles=$roles
node.id=$node
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port$listens$more
advertised.listeners=PLAINTEXT://127.0.0.1:$port$more
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT$protocols
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
$secured
${KAFKA_PROPS:-}
P
java=(java "-Xms${KAFKA_HEAP:-256m}" "-Xmx${KAFKA_HEAP:-256m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto
  -Djava.awt.headless=true -cp "$here/kafka:$PEERS/kafka/lib/*")
if [ ! -e "$dir/data/meta.properties" ]; then
  # Only letters and digits: an id that begins with a dash is taken for an option.
  cluster=${KAFKA_CLUSTER:-$(head -c 16 /dev/urandom | base64 | tr '+/' AB | tr -d =)}
  "${java[@]}" kafka.tools.StorageTool format -t "$cluster" -c "$dir/server.properties" "${scram[@]}" >&2
fi
exec "${java[@]}" kafka.Kafka "$dir/server.properties"
