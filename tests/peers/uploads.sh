#!/usr/bin/env bash
# Runs two platforms that take files, VirusTotal and Vile Analyziz, on loopback in the foreground; what arrived is in DIR/received.jsonl. Usage: uploads.sh DIR PORT PORT_OF_UPLOADS
# DIR/known and DIR/errors steer them while they run: see uploads/server.py.
set -euo pipefail
# shellcheck source=peers-env.sh
. "$(dirname "${BASH_SOURCE[0]}")/peers-env.sh"
dir=$(absolute "$1")
exec python3 "$here/uploads/server.py" "$dir" "$2" "$3"
