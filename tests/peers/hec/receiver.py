#!/usr/bin/env python3
"""A HEC receiver that answers as Splunk documents it. It is OURS, not a third party's: see ../README.md. Started by ../hec.sh. Usage: receiver.py DIR PORT [acks]
Files in DIR, read anew for every request: tokens (one a line, "TOKEN" or "TOKEN disabled"), indexes (allowed index names, one a line; no file: all),
hold-acks (while it exists acks stay false), busy (while it exists: 503). Accepted events: DIR/received.jsonl."""
import gzip
import json
import os
import ssl
import sys
import threading
import time
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

DIR, PORT, ACKS = sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["acks"]
ACK_DELAY = float(os.environ.get("HEC_ACK_DELAY", "0.3"))  # seconds until an ack turns true
KEEP_PREFIX = os.environ.get("HEC_PREFIX", "keep") == "keep"  # are the events before a bad one indexed? evidence conflicts
MAX_BYTES = int(os.environ.get("HEC_MAX_BYTES", str(800 << 20)))
TEXT = {0: (200, "Success"), 1: (403, "Token disabled"), 2: (401, "Token is required"), 3: (401, "Invalid authorization"),
        4: (403, "Invalid token"), 5: (400, "No data"), 6: (400, "Invalid data format"), 7: (400, "Incorrect index"),
        9: (503, "Server is busy"), 10: (400, "Data channel is missing"), 11: (400, "Invalid data channel"),
        12: (400, "Event field is required"), 13: (400, "Event field cannot be blank"), 14: (400, "ACK is disabled"),
        15: (400, "Error in handling indexed fields"), 17: (200, "HEC is healthy")}
EVENT_PATHS = {"/services/collector", "/services/collector/event", "/services/collector/event/1.0", "/services/collector/1.0"}

lock = threading.Lock()
out = open(os.path.join(DIR, "received.jsonl"), "a", encoding="utf-8")
requests = 0
channels = {}  # channel -> [next ackId, {ackId: time when it turns true}]


class Refused(Exception):
    def __init__(self, code, number=None, accepted=()):
        self.code, self.number, self.accepted = code, number, list(accepted)


def lines(name):
    try:
        with open(os.path.join(DIR, name), encoding="utf-8") as f:
            return [line.split() for line in f if line.strip()]
    except FileNotFoundError:
        return None


def reject_constant(name):
    raise ValueError(name)


def check(envelope, indexes):
    """The code of what is wrong with one envelope, or None."""
    if not isinstance(envelope, dict):
        return 6
    event = envelope.get("event")
    if event is None:
        return 12
    if event == "":
        return 13
    if indexes is not None and envelope.get("index") is not None and [envelope["index"]] not in indexes:
        return 7
    fields = envelope.get("fields", {})
    flat = isinstance(fields, dict) and all(
        isinstance(v, (str, int, float)) or (isinstance(v, list) and all(isinstance(x, (str, int, float)) for x in v)) for v in fields.values())
    if not flat:
        return 15
    try:
        float(envelope.get("time", 0))
    except (TypeError, ValueError):
        return 6
    return None


def parse(body):
    """Concatenated JSON objects, with or without white space between them. Raises Refused with what came before."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(6, 0) from None
    decoder, good, at = json.JSONDecoder(parse_constant=reject_constant), [], 0
    indexes = lines("indexes")
    while True:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        if at == len(text):
            break
        try:
            envelope, at = decoder.raw_decode(text, at)
        except ValueError:
            raise Refused(6, len(good), good) from None
        code = check(envelope, indexes)
        if code:
            raise Refused(code, len(good), good)
        good.append(envelope)
    if not good:
        raise Refused(5)
    return good


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, doc, headers=()):
        body = json.dumps(doc, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def code(self, code, number=None, **more):
        status, text = TEXT[code]
        doc = {"text": text, "code": code, **({} if number is None else {"invalid-event-number": number}), **more}
        self.answer(status, doc)

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def authorise(self):
        header = self.headers.get("Authorization")
        if not header:
            raise Refused(2)
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "splunk" or not token:
            raise Refused(3)
        known = {line[0]: line[1:] for line in lines("tokens") or []}
        if token not in known:
            raise Refused(4)
        if known[token] == ["disabled"]:
            raise Refused(1)
        return token

    def channel(self, query, needed):
        channel = self.headers.get("X-Splunk-Request-Channel") or query.get("channel", [None])[0]
        if channel is None:
            if needed:
                raise Refused(10)
            return None
        try:
            return str(uuid.UUID(channel))
        except ValueError:
            raise Refused(11) from None

    def record(self, token, channel, events):
        """Writes the events; gives back the ackId or None."""
        global requests
        with lock:
            ack = None
            if ACKS:
                state = channels.setdefault(channel, [0, {}])
                ack, state[0] = state[0], state[0] + 1
                state[1][ack] = time.monotonic() + ACK_DELAY
            for number, event in enumerate(events):
                out.write(json.dumps({"request": requests, "number": number, "path": urlsplit(self.path).path, "token": token, "channel": channel,
                                      "ackId": ack, "encoding": self.headers.get("Content-Encoding"), "envelope": event}, ensure_ascii=False) + "\n")
            out.flush()
            requests += 1
        return ack

    def acks(self, channel, body):
        try:
            wanted = json.loads(body)["acks"]
            assert all(isinstance(n, int) for n in wanted)
        except (ValueError, TypeError, KeyError, AssertionError):
            raise Refused(6) from None
        result = {}
        with lock:
            pending = channels.get(channel, [0, {}])[1]
            for n in wanted:
                done = n in pending and pending[n] <= time.monotonic() and not os.path.exists(os.path.join(DIR, "hold-acks"))
                if done:  # true is told once and then forgotten
                    del pending[n]
                result[str(n)] = done
        self.answer(200, {"acks": result})

    def handle_post(self):
        url = urlsplit(self.path)
        query, path = parse_qs(url.query), url.path.rstrip("/")
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BYTES:
            self.close_connection = True
            return self.answer(413, {"text": f"Content-Length of {length} too large (maximum is {MAX_BYTES})", "code": 27})
        body = self.body()
        if path not in EVENT_PATHS | {"/services/collector/raw", "/services/collector/raw/1.0", "/services/collector/ack", "/services/collector/ack/1.0"}:
            return self.answer(404, {"text": "The requested URL was not found on this server.", "code": 404})
        token = self.authorise()
        if os.path.exists(os.path.join(DIR, "busy")):
            raise Refused(9)
        if path.startswith("/services/collector/ack"):
            if not ACKS:
                raise Refused(14)
            return self.acks(self.channel(query, True), body)
        raw = path.startswith("/services/collector/raw")
        channel = self.channel(query, ACKS or raw)
        if self.headers.get("Content-Encoding", "").lower() == "gzip":
            try:
                body = gzip.decompress(body)
            except (OSError, EOFError, zlib.error):
                raise Refused(6) from None
        if not body.strip():
            raise Refused(5)
        if raw:
            meta = {k: v[0] for k, v in query.items() if k in ("host", "source", "sourcetype", "index", "time")}
            events = [{**meta, "event": line} for line in body.decode("utf-8", "replace").splitlines() if line.strip()]
        else:
            try:
                events = parse(body)
            except Refused as refused:
                if KEEP_PREFIX and refused.accepted:
                    self.record(token, channel, refused.accepted)
                raise
        ack = self.record(token, channel, events)
        self.code(0, **({} if ack is None else {"ackId": ack}))

    def do_POST(self):
        try:
            self.handle_post()
        except Refused as refused:
            self.code(refused.code, refused.number)

    def do_GET(self):
        if urlsplit(self.path).path.rstrip("/") in ("/services/collector/health", "/services/collector/health/1.0"):
            self.code(9 if os.path.exists(os.path.join(DIR, "busy")) else 17)
        else:
            self.answer(404, {"text": "The requested URL was not found on this server.", "code": 404})

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", PORT), Handler)
if certs := os.environ.get("CERTS"):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(f"{certs}/server.pem", f"{certs}/server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
