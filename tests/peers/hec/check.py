#!/usr/bin/env python3
"""Sends the same requests to any HEC receiver and prints its exact answers: to compare ours with a real Splunk. Usage: check.py URL TOKEN [CA_FILE]"""
import gzip
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid

URL, TOKEN = sys.argv[1].rstrip("/"), sys.argv[2]
TLS = ssl.create_default_context(cafile=sys.argv[3]) if len(sys.argv) > 3 else None
CHANNEL = str(uuid.uuid4())
EVENT = '{"time":1790000000.5,"host":"h","source":"s","sourcetype":"verdict:json","event":{"n":%d},"fields":{"event_id":"e%d"}}'


def send(name, body, path="/services/collector/event", drop=(), **headers):
    all_headers = {"Authorization": f"Splunk {TOKEN}", "X-Splunk-Request-Channel": CHANNEL, "Content-Type": "application/json",
                   **{k.replace("_", "-"): v for k, v in headers.items()}}
    data = None if body is None else body if isinstance(body, bytes) else body.encode()
    request = urllib.request.Request(URL + path, data, {k: v for k, v in all_headers.items() if k not in drop})
    try:
        with urllib.request.urlopen(request, timeout=10, context=TLS) as r:
            status, text = r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        status, text = e.code, e.read().decode()
    print(f"{name:42} {status} {text}")
    return status, text


good = EVENT % (1, 1)
_, first = send("good event", good)
send("two, no separator", EVENT % (2, 2) + EVENT % (3, 3))
send("two, one per line", EVENT % (4, 4) + "\n" + EVENT % (5, 5) + "\n")
send("gzip", gzip.compress((EVENT % (6, 6)).encode()), Content_Encoding="gzip")
send("gzip announced, body is not", good, Content_Encoding="gzip")
send("array", "[" + good + "]")
send("no token", good, drop=["Authorization"])
send("authorization without scheme", good, Authorization=TOKEN)
send("wrong token", good, Authorization="Splunk 00000000-0000-0000-0000-000000000000")
send("no channel", good, drop=["X-Splunk-Request-Channel"])
send("channel is no GUID", good, X_Splunk_Request_Channel="abc")
send("empty body", "")
send("malformed JSON", '{"event":')
send("second of three malformed", EVENT % (7, 7) + '{"event":}' + EVENT % (8, 8))
send("no event field", '{"host":"h"}')
send("event null", '{"event":null}')
send("blank event", '{"event":""}')
send("second of two blank", EVENT % (9, 9) + '{"event":""}')
send("nested field", '{"event":"e","fields":{"a":{"b":1}}}')
send("time is no number", '{"event":"e","time":"noon"}')
send("unknown index", '{"event":"e","index":"no_such_index"}')
send("raw", "line one\nline two\n", "/services/collector/raw?sourcetype=t")
send("unknown path", good, "/services/collector/nothing")
send("health", None, "/services/collector/health")
ack = json.loads(first).get("ackId")
poll = json.dumps({"acks": [0 if ack is None else ack, 999]})
for attempt in range(10):
    status, text = send("ack poll", poll, "/services/collector/ack")
    if status != 200 or "true" in text:
        break
    time.sleep(1)
send("same ack again", poll, "/services/collector/ack")
send("ack poll without channel", poll, "/services/collector/ack", drop=["X-Splunk-Request-Channel"])
