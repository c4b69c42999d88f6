# shellcheck shell=bash
# Sourced by the start scripts: $here is this folder, $PEERS what install.sh filled.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PEERS=${PEERS:-$(cd "$here/../.." && pwd)/.peers}
installed() { [ -e "$PEERS/stamps/$1" ] || { echo "peers: $1 is not installed, run $here/install.sh" >&2; exit 1; }; }
absolute() { mkdir -p "$1" && (cd "$1" && pwd); }
