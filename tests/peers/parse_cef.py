#!/usr/bin/env python3
"""Parses CEF lines from stdin with parsers nobody here wrote; prints one JSON object a line: {"header": {...}, "extensions": {...}} or {"error": ...}.
Usage: parse_cef.py [lognorm|parcefone]   Anything before "CEF:" (a syslog header) is cut off.
lognorm (default): liblognorm, the parser inside rsyslog. Undoes escapes, rejects unknown ones. parcefone: the parser inside Apache NiFi.
Keeps escapes as they are, but turns addresses, numbers and times of the standard keys into their types and rejects wrong ones. env: PEERS"""
import json
import os
import re
import subprocess
import sys
import tempfile

HEADER = re.compile(r"CEF:(?:[^|\\]|\\.)*\|(?:(?:[^|\\]|\\.)*\|){6}")


def lognorm(lines):
    # liblognorm 2.0.6 swallows the first letter of the first key when no space stands before it, so a space is put there
    spaced = [(m.group() + " " + line[m.end():].lstrip(" ") if (m := HEADER.match(line)) else line) for line in lines]
    with tempfile.NamedTemporaryFile("w", suffix=".rb") as rules:
        rules.write("version=2\nrule=:%cef:cef%\n")
        rules.flush()
        out = run(["lognormalizer", "-r", rules.name, "-e", "json"], spaced)
    for doc in out:
        cef = doc.get("cef")
        if cef is None:
            yield {"error": "liblognorm does not accept it", "unparsed": doc.get("unparsed-data")}
        else:
            extensions = cef.pop("Extensions")
            yield {"header": cef, "extensions": extensions}


def parcefone(lines):
    here = os.path.dirname(os.path.abspath(__file__))
    cef = os.path.join(os.environ.get("PEERS", os.path.join(here, "../../.peers")), "cef")
    return run(["java", "-XX:TieredStopAtLevel=1", "-cp", f"{cef}/classes:{cef}/lib/*", "ParseCef"], lines)


def run(command, lines):
    text = "".join(line + "\n" for line in lines)
    out = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout.decode()
    docs = [json.loads(line) for line in out.splitlines()]
    if len(docs) != len(lines):
        sys.exit(f"{command[0]} answered {len(docs)} objects to {len(lines)} lines")
    return docs


parser = {"lognorm": lognorm, "parcefone": parcefone}.get((sys.argv[1:] or ["lognorm"])[0]) or sys.exit(__doc__)
sys.stdin.reconfigure(encoding="utf-8", newline="\n")
wanted = [line.rstrip("\n") for line in sys.stdin]
for result in parser([line[max(line.find("CEF:"), 0):] for line in wanted]):
    print(json.dumps(result, ensure_ascii=False))
