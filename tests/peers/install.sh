#!/usr/bin/env bash
# Installs the real test peers and the tools of `make test` (Debian 12, root for apt). Usage: tests/peers/install.sh [build|apt|syslog-ng|kafka|cef|python|npm|cargo ...]   env: PEERS=DIR (default <repo>/.peers)
# `build` is what compiling needs, and all that `make demo` installs; `cargo` is cargo-deny.
# Every part is skipped when its stamp file matches its pinned inputs. Progress and seconds go to stderr.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PEERS=${PEERS:-$(cd "$here/../.." && pwd)/.peers}
mkdir -p "$PEERS/stamps"
PEERS=$(cd "$PEERS" && pwd)
echo '*' > "$PEERS/.gitignore"
export DEBIAN_FRONTEND=noninteractive

build_packages=(gcc g++ make pkg-config libssl-dev zlib1g-dev)
packages=(openssl curl strace e2fsprogs util-linux
  rsyslog rsyslog-openssl rsyslog-relp liblognorm-utils
  libivykis0 libnet1 libjson-c5 libwrap0 libpcre3)
syslog_ng_version='3.38.1*'
cargo_deny_version=0.20.2

say() { echo "peers: $*" >&2; }
need() { command -v "$1" >/dev/null || { say "missing command: $1 ($2)"; return 1; }; }
updated=
apt_get() {
  [ "$(id -u)" = 0 ] || { say "not root; let root run: apt-get $*"; return 1; }
  if [ -z "$updated" ]; then apt-get update -qq >&2; updated=1; fi
  apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2
}

not_installed() { # prints those of the named packages that are not installed
  local p
  for p in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || echo "$p"
  done
}
missing_packages() {
  not_installed "${packages[@]}"
  command -v java >/dev/null && command -v javac >/dev/null || echo openjdk-17-jdk-headless
  command -v mvn >/dev/null || echo maven
  command -v python3 >/dev/null || echo python3
  python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

install_all() { [ $# = 0 ] || apt_get install -y --no-install-recommends "$@"; }
part_build() {
  local list
  command -v dpkg-query >/dev/null || { say "no Debian: install a C and a C++ compiler, make, pkg-config, OpenSSL and zlib with headers"; return 1; }
  mapfile -t list < <(not_installed "${build_packages[@]}")
  install_all "${list[@]}"
  need cargo 'https://rustup.rs'
}
part_apt() {
  local list
  mapfile -t list < <(missing_packages)
  install_all "${list[@]}"
}

part_syslog_ng() { # the package conflicts with rsyslog, so it is unpacked beside it
  local tmp
  tmp=$(mktemp -d)
  chmod 755 "$tmp"
  (cd "$tmp" && { apt-get download -qq "syslog-ng-core=$syslog_ng_version" >&2 2>/dev/null ||
    { apt_get update && apt-get download -qq "syslog-ng-core=$syslog_ng_version" >&2; }; })
  rm -rf "$PEERS/syslog-ng"
  dpkg -x "$tmp"/syslog-ng-core_*.deb "$PEERS/syslog-ng"
  rm -rf "$tmp"
  LD_LIBRARY_PATH="$PEERS/syslog-ng/usr/lib/syslog-ng" "$PEERS/syslog-ng/usr/sbin/syslog-ng" \
    --module-path="$PEERS/syslog-ng/usr/lib/syslog-ng/3.38" --version | head -1 >&2
}

maven_jars() { # maven_jars POM DIR
  rm -rf "$2"
  mvn -B -q -Dstyle.color=never -f "$1" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$2" >&2
}
part_kafka() {
  need mvn maven
  need javac openjdk-17-jdk-headless
  maven_jars "$here/kafka/pom.xml" "$PEERS/kafka/lib"
  javac -cp "$PEERS/kafka/lib/*" -d "$PEERS/kafka/classes" "$here/kafka/Read.java" >&2
}
part_cef() {
  need mvn maven
  need javac openjdk-17-jdk-headless
  maven_jars "$here/cef/pom.xml" "$PEERS/cef/lib"
  javac -cp "$PEERS/cef/lib/*" -d "$PEERS/cef/classes" "$here/cef/ParseCef.java" >&2
}
part_python() {
  rm -rf "$PEERS/venv"
  python3 -m venv "$PEERS/venv" >&2
  "$PEERS/venv/bin/pip" install -q --disable-pip-version-check --no-deps -r "$here/requirements.txt" >&2
  "$PEERS/venv/bin/pip" check >&2
}
part_npm() {
  need npm 'Node.js 20 or newer'
  [ "$(node -p 'parseInt(process.versions.node)')" -ge 20 ] || { say "node $(node -v) is too old, 20 or newer needed"; return 1; }
  rm -rf "$PEERS/npm"
  mkdir -p "$PEERS/npm"
  cp "$here/npm/package.json" "$here/npm/package-lock.json" "$here/npm/.npmrc" "$here/npm/load.mjs" "$PEERS/npm/"
  (cd "$PEERS/npm" && npm ci --no-audit --no-fund --loglevel=error >&2)
}
part_cargo() { # unoptimised: a minute instead of ten to build, two seconds instead of one to run
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$PEERS/cargo/target" \
    cargo install --quiet --locked --debug --force --root "$PEERS/cargo" cargo-deny --version "$cargo_deny_version" >&2
  rm -rf "$PEERS/cargo/target"
}

run() { # run NAME FUNCTION INPUT...   the stamp holds the checksum of the inputs and of the function
  local name=$1 function=$2 stamp sum start
  shift 2
  if [ ${#wanted[@]} -gt 0 ] && ! printf '%s\n' "${wanted[@]}" | grep -qx "$name"; then return 0; fi
  stamp="$PEERS/stamps/$name"
  sum=$({ declare -f "$function"; printf '%s\n' "${build_packages[@]}" "${packages[@]}" "$syslog_ng_version" "$cargo_deny_version" "$PEERS"; [ $# = 0 ] || cat "$@"; } | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then say "$name: up to date"; return 0; fi
  start=$EPOCHREALTIME
  say "$name: installing"
  rm -f "$stamp"
  (set -e; "$function") & # a subshell in the background keeps set -e alive inside the part
  wait $! || { say "$name: FAILED"; exit 1; }
  echo "$sum" > "$stamp"
  say "$name: done in $(awk "BEGIN{printf \"%.1f\", $EPOCHREALTIME - $start}") s"
}

wanted=("$@")
# a stamp says nothing about packages removed since, and the check is cheap
[ -z "$(missing_packages)" ] || rm -f "$PEERS/stamps/apt"
[ -z "$(not_installed "${build_packages[@]}")" ] || rm -f "$PEERS/stamps/build"
run build part_build
run apt part_apt
run syslog-ng part_syslog_ng
run kafka part_kafka "$here/kafka/pom.xml" "$here/kafka/Read.java"
run cef part_cef "$here/cef/pom.xml" "$here/cef/ParseCef.java"
run python part_python "$here/requirements.txt"
run npm part_npm "$here/npm/package-lock.json" "$here/npm/.npmrc" "$here/npm/load.mjs"
run cargo part_cargo
say "ready in $PEERS"
