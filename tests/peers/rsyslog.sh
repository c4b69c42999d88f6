#!/usr/bin/env bash
# Runs rsyslogd (loopback) in the foreground; messages go to DIR/received.jsonl. Usage: rsyslog.sh DIR UDP TCP TLS [RELP]   env: LISTEN (127.0.0.1), CERTS (default DIR/certs, made when missing), ESCAPE=on|off (control characters; on is rsyslog's default), MAX_MESSAGE (64k; rsyslog's own default is 8k)
# TCP takes octet-counted and LF frames; TLS wants a client certificate with the name "forwarder".
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
installed apt
dir=$(absolute "$1")
certs=${CERTS:-$dir/certs} listen=${LISTEN:-127.0.0.1}
"$here/certs.sh" "$certs"
cat > "$dir/rsyslog.conf" <<C
global(
  workDirectory="$dir" maxMessageSize="${MAX_MESSAGE:-64k}"
  parser.escapeControlCharactersOnReceive="${ESCAPE:-on}"
  defaultNetstreamDriverCAFile="$certs/ca.pem"
  defaultNetstreamDriverCertFile="$certs/server.pem"
  defaultNetstreamDriverKeyFile="$certs/server.key"
)
module(load="imudp")
module(load="imtcp")
${5:+module(load=\"imrelp\")}
template(name="json" type="list" option.jsonf="on") {
  property(outname="input" name="inputname" format="jsonf")
  property(outname="pri" name="pri" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="procid" name="procid" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="sd" name="structured-data" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
  property(outname="raw" name="rawmsg" format="jsonf")
}
ruleset(name="out") {
  action(type="omfile" file="$dir/received.jsonl" template="json" asyncWriting="off" flushOnTXEnd="on")
}
input(type="imudp" address="$listen" port="$2" ruleset="out" name="udp")
input(type="imtcp" address="$listen" port="$3" ruleset="out" name="tcp" streamDriver.name="ptcp" streamDriver.mode="0")
input(type="imtcp" address="$listen" port="$4" ruleset="out" name="tls"
  streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=["forwarder"])
${5:+input(type=\"imrelp\" address=\"127.0.0.1\" port=\"$5\" ruleset=\"out\" name=\"relp\")}
C
exec rsyslogd -n -f "$dir/rsyslog.conf" -i "$dir/rsyslogd.pid"
