#!/usr/bin/env bash
# Runs a VirusTotal (API v3) on loopback in the foreground; it writes each request to DIR/requests.jsonl. Usage: virustotal.sh DIR PORT
# DIR/keys, objects.json, notifications.jsonl, errors and quota steer it while it runs: see virustotal/server.py.
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
dir=$(absolute "$1")
exec python3 "$here/virustotal/server.py" "$dir" "$2"
