#!/usr/bin/env bash
# Runs the parts of the suite named, or all of them, and prints the minutes of each. Usage: scripts/test.sh [PART...]
# Every part runs even when another failed, except that nothing can run without `peers`. The exit code is 1 when any failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$(pwd -P)
export PEERS=${PEERS:-$root/.peers}
target=${CARGO_TARGET_DIR:-$root/target}
# A snapshot that differs or is new fails; it is accepted by hand.
export INSTA_UPDATE=no
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

all=(peers format clippy build unit tidy it fuzz docs deny files)

part_peers() { # what the tests need, once
  tests/peers/install.sh
}
part_format() {
  cargo fmt --all --check
}
part_clippy() { # also without the feature that `cargo test` alone does not have
  cargo clippy --locked --all-targets --features peers -- -D warnings && cargo clippy --locked --package verdict-relay-fuzz -- -D warnings
}
part_build() {
  cargo test --locked --features peers --no-run
}
part_unit() { # the library's own tests; then every snapshot has to have been asked for
  local asked=$target/snapshots-asked
  rm -f "$asked"
  INSTA_SNAPSHOT_REFERENCES_FILE=$asked cargo test --locked --features peers --lib --bins || return 1
  local left
  left=$(comm -23 <(git ls-files '*.snap' | sed "s|^|$root/|" | sort -u) <(sort -u "$asked" 2>/dev/null))
  [ -z "$left" ] || { echo "no test asks for these snapshots any more, remove them:"; echo "$left"; return 1; }
}
part_tidy() { # the house rules
  cargo test --locked --features peers --test tidy
}
part_it() { # the program against the real peers and real faults; one at a time, because each loads both cores by itself
  cargo test --locked --features peers --test it -- --test-threads=1
}
part_docs() {
  RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
}
part_fuzz() { # every adapter and every proof, for a bounded time; FUZZ_SECONDS for longer
  scripts/fuzz.sh "${FUZZ_SECONDS:-30}"
}
part_deny() { # licences, bans and sources always; advisories where their database can be fetched
  local deny=$PEERS/cargo/bin/cargo-deny
  cargo fetch --locked || return 1 # also the crates of other platforms, which no build here has asked for
  "$deny" --locked --offline check --hide-inclusion-graph bans licenses sources || return 1
  if timeout 120 "$deny" --locked fetch db >"$target/advisories.log" 2>&1 && ! grep -q '\[ERROR\]' "$target/advisories.log"; then
    "$deny" --locked check --disable-fetch advisories
  else
    cat "$target/advisories.log"
    note "advisories NOT CHECKED: their database (a git repository) cannot be fetched from here; run 'cargo deny check advisories' where it can"
  fi
}
part_files() { # scripts, container and config files; that the schema is the code's is a unit test
  local venv=$PEERS/venv/bin failed=
  git ls-files -z | while IFS= read -r -d '' file; do
    case $file in *.sh | .ci/run) printf '%s\0' "$file" ;; esac
  done | xargs -0 "$venv/shellcheck" -x -P SCRIPTDIR || failed=1
  "$venv/hadolint" Dockerfile || failed=1
  "$venv/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml || failed=1
  syslog_ng --syntax-only -f deploy/compose/syslog-ng.conf || failed=1
  "$venv/check-jsonschema" --schemafile config/schema.json config/*.toml || failed=1
  [ -z "$failed" ]
}

syslog_ng() {
  local usr=$PEERS/syslog-ng/usr
  LD_LIBRARY_PATH=$usr/lib/syslog-ng "$usr/sbin/syslog-ng" --no-caps --module-path="$usr/lib/syslog-ng/3.38" "$@"
}
note() { # what the last lines have to say although nothing failed
  echo "$1" | tee -a "$target/test-notes"
}

parts=("$@")
[ $# -gt 0 ] || parts=("${all[@]}")
for part in "${parts[@]}"; do
  declare -F "part_$part" >/dev/null || { echo "no such part: $part (${all[*]})" >&2; exit 2; }
done
mkdir -p "$target"
rm -f "$target/test-notes"
rows=() failed=() begin=$EPOCHREALTIME
minutes() { awk "BEGIN{printf \"%.1f\", ($EPOCHREALTIME - $1) / 60}"; }
for part in "${parts[@]}"; do
  echo "== $part"
  start=$EPOCHREALTIME
  if "part_$part"; then result=ok; else result=FAILED failed+=("$part"); fi
  rows+=("$(printf '%-8s %5s min  %s' "$part" "$(minutes "$start")" "$result")")
  if [ "$part$result" = peersFAILED ]; then break; fi
done

echo
printf '%s\n' "${rows[@]}"
[ ! -e "$target/test-notes" ] || sed 's/^/note: /' "$target/test-notes"
if [ ${#failed[@]} = 0 ]; then
  echo "all ${#rows[@]} parts passed in $(minutes "$begin") minutes"
else
  echo "FAILED: ${failed[*]} (${#rows[@]} of ${#parts[@]} parts ran, $(minutes "$begin") minutes)"
  exit 1
fi
