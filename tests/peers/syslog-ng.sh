#!/usr/bin/env bash
# Runs syslog-ng (loopback) in the foreground; messages go to DIR/received.jsonl. Usage: syslog-ng.sh DIR UDP OCTET LF TLS   env: CERTS (default DIR/certs, made when missing), MAX_MESSAGE (65536)
# OCTET and TLS are octet-counted only, LF is newline-framed; all of them RFC 5424. TLS wants a client certificate with CN=forwarder.
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
installed syslog-ng
dir=$(absolute "$1")
certs=${CERTS:-$dir/certs}
"$here/certs.sh" "$certs"
cat > "$dir/syslog-ng.conf" <<C
@version: 3.38
options { flush-lines(1); keep-hostname(yes); use-dns(no); dns-cache(no); frac-digits(6); stats-freq(0); log-msg-size(${MAX_MESSAGE:-65536}); };
source s_udp { syslog(ip("127.0.0.1") port($2) transport("udp") flags(store-raw-message)); };
source s_octet { syslog(ip("127.0.0.1") port($3) transport("tcp") flags(store-raw-message)); };
source s_lf { network(ip("127.0.0.1") port($4) transport("tcp") flags(syslog-protocol, store-raw-message)); };
source s_tls { syslog(ip("127.0.0.1") port($5) transport("tls") flags(store-raw-message)
  tls(key-file("$certs/server.key") cert-file("$certs/server.pem") ca-file("$certs/ca.pem")
    peer-verify(required-trusted) trusted-dn("CN=forwarder"))); };
destination d_file { file("$dir/received.jsonl" template("\$(format-json input=\$SOURCE pri=\$PRI time=\$ISODATE host=\$HOST app=\$PROGRAM procid=\$PID msgid=\$MSGID sd=\$SDATA msg=\$MESSAGE raw=\$RAWMSG)\n")); };
log { source(s_udp); source(s_octet); source(s_lf); source(s_tls); destination(d_file); };
C
root=$PEERS/syslog-ng/usr
export LD_LIBRARY_PATH="$root/lib/syslog-ng"
exec "$root/sbin/syslog-ng" --foreground --stderr --no-caps -f "$dir/syslog-ng.conf" \
  --module-path="$root/lib/syslog-ng/3.38" --persist-file="$dir/syslog-ng.persist" --pidfile="$dir/syslog-ng.pid" --control="$dir/syslog-ng.ctl"
