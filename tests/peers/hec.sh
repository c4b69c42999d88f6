#!/usr/bin/env bash
# Runs the HEC receiver (loopback) in the foreground; events go to DIR/received.jsonl. Usage: hec.sh DIR PORT [acks]   env: HEC_TOKEN (first token, default below), CERTS (TLS with server.pem/.key), HEC_ACK_DELAY (0.3), HEC_PREFIX=keep|drop, HEC_MAX_BYTES
# DIR/tokens, DIR/indexes, DIR/hold-acks and DIR/busy steer it while it runs: see hec/receiver.py.
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
dir=$(absolute "$1")
[ -e "$dir/tokens" ] || echo "${HEC_TOKEN:-8f0d3c5e-0000-4000-8000-000000000001}" > "$dir/tokens"
exec python3 "$here/hec/receiver.py" "$dir" "$2" "${@:3}"
