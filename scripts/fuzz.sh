#!/usr/bin/env bash
# Fuzzes every adapter and every proof for some seconds each (30 by default), from the bodies and signatures of the tests.
# Usage: scripts/fuzz.sh [SECONDS]. An input that breaks something is kept and named; it becomes a test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-30}
host=$(rustc -vV | sed -n 's/^host: //p')
out=${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$out"/{adapters,proofs}/{seeds,corpus,broken}

# Coverage as LLVM's fuzzer wants it. With a target named, build scripts go without.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --locked --quiet --package verdict-relay-fuzz --target "$host" --target-dir "$out/build"

python3 - "$out" <<'PYTHON'
# Seeds: every recorded body with the name of its adapter, every recorded signature with the name of its proof.
import glob, hashlib, json, os, sys
out = sys.argv[1]
def seed(target, name, text):
    data = name.encode() + b"\n" + text
    with open(os.path.join(out, target, "seeds", hashlib.sha256(data).hexdigest()[:16]), "wb") as file:
        file.write(data)
adapters = {"azure_defender_storage": "event_grid", "aws_guardduty_s3": "aws"}
for path in glob.glob("tests/payloads/*/*.*json"):
    folder = path.split("/")[2]
    seed("adapters", adapters.get(folder, folder), open(path, "rb").read())
for path in glob.glob("adapters/*/bodies/*"):
    seed("adapters", path.split("/")[1], open(path, "rb").read())
proofs = {"timestamped-v1": "vileanalyziz", "prefix-hex": "github", "plain-hex": "polyswarm", "static-basic": "basic",
          "rsa-sha256-pkcs1v15": "rsa", "aws-sns-v2": "sns"}
for vector in json.load(open("tests/payloads/signature_vectors.json")):
    body = vector.get("body_inline", "").encode()
    if "body_file" in vector:
        paths = [f"{top}/{vector['body_file']}" for top in ("tests/payloads",)]
        body = next((open(path, "rb").read() for path in paths if os.path.exists(path)), b"")
    if "replace_signature_with" in vector:
        body = body.replace(b'"EXAMPLE"', b'"' + vector["replace_signature_with"].encode() + b'"')
    head = "".join(f"{name}: {value}\n" for name, value in vector["headers"].items()).encode()
    seed("proofs", proofs.get(vector["scheme"], vector["scheme"]), head + b"\n" + body)
PYTHON

for target in adapters proofs; do
  echo "fuzz: $target for $seconds s, from $(find "$out/$target/seeds" -type f | wc -l) seeds"
  folder=$out/$target
  if ! "$out/build/$host/debug/$target" -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$folder/broken/" "$folder/corpus" "$folder/seeds" >"$folder/log" 2>&1; then
    tail -40 "$folder/log"
    echo "fuzz: $target broke; the input is in $folder/broken. Try it again: $out/build/$host/debug/$target FILE"
    exit 1
  fi
  sed -n 's/^stat::number_of_executed_units: */fuzz: inputs tried: /p' "$folder/log"
done
