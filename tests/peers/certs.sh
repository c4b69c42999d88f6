#!/usr/bin/env bash
# Makes test certificates. Usage: certs.sh DIR -> ca, server (localhost, 127.0.0.1), client (CN forwarder), rogue (CN forwarder, other CA): .pem and .key; kept when they exist
set -euo pipefail
dir=$1
mkdir -p "$dir"
cd "$dir"
[ ! -e rogue.pem ] || exit 0
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
ca() { # ca NAME CN
  openssl req -x509 "${new_key[@]}" -days 30 -subj "/CN=$2" -keyout "$1.key" -out "$1.pem" 2>/dev/null
}
leaf() { # leaf NAME CN CA SUBJECT_ALT_NAMES
  openssl req "${new_key[@]}" -subj "/CN=$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -CAcreateserial -days 30 -out "$1.pem" 2>/dev/null \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$4")
  rm "$1.csr"
}
ca ca 'test CA'
ca other-ca 'other CA'
leaf server localhost ca DNS:localhost,IP:127.0.0.1
leaf client forwarder ca DNS:forwarder
leaf rogue forwarder other-ca DNS:forwarder
