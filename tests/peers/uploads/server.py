#!/usr/bin/env python3
"""Two platforms that take files, on loopback, for tests: VirusTotal (API v3) and Vile Analyziz. Written from their references; VirusTotal's
own client (vt-py) has to accept the one, the quickstart of the other is all that is published.

usage: server.py DIR PORT PORT_OF_UPLOADS

KEY is the key of both. DIR is read at each request: `known` (a SHA-256 a line), `errors` (lines `PART STATUS CODE [RETRY-AFTER]`: what has
PART in its method and path, like `POST/api/v3/files`, answers this). Every request is a line of DIR/requests.jsonl, every file that arrived one of DIR/received.jsonl. What Vile Analyziz
is sent goes to the other port, as to a storage of somebody else, where our key must not appear.
"""
import base64, hashlib, json, os, re, secrets, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "an-api-key-of-more-than-24-bytes"
DIRECT_MAX = 32 << 20

folder, port, storage_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
lock = threading.Lock()
# Addresses that were given out: for VirusTotal whether privately, for Vile Analyziz what was announced.
places, arrived = {}, {}


class Refused(Exception):
    def __init__(self, status, code, retry_after=None):
        self.status, self.code, self.retry_after = status, code, retry_after


def lines(name):
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def note(name, value):
    with lock, open(os.path.join(folder, name), "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def form_file(kind, body):
    """The one file of a form, by the letter of RFC 7578: boundary, part head, empty line, bytes, boundary."""
    boundary = re.fullmatch(r'multipart/form-data; *boundary="?([^"]+)"?', kind)
    if not boundary:
        raise Refused(400, "BadRequestError")
    mark = b"--" + boundary[1].encode()
    if not body.startswith(mark + b"\r\n") or not body.rstrip(b"\r\n").endswith(b"\r\n" + mark + b"--"):
        raise Refused(400, "BadRequestError")
    head, _, rest = body[len(mark) + 2:].partition(b"\r\n\r\n")
    content = rest[:rest.rindex(b"\r\n" + mark + b"--")]
    name = re.search(rb'form-data; name="file"; filename="([^"]*)"', head)
    if not name or mark in content:
        raise Refused(400, "BadRequestError")
    return name[1].decode(), content


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError
        return body

    def run(self):
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        retry_after = None
        try:
            body = self.body()
        except ConnectionAbortedError:
            self.close_connection = True
            return
        has_key = KEY in (self.headers.get("x-apikey"), self.headers.get("authorization", "").removeprefix("Bearer "))
        try:
            for line in lines("errors"):
                part, status, code, *wait = line.split(" ")
                if part in self.command + path:
                    raise Refused(int(status), code, wait[0] if wait else None)
            is_storage = self.server.server_port == storage_port
            if is_storage == has_key:
                raise Refused(401, "WrongCredentialsError")
            status, answer = 200, self.storage(path, body) if is_storage else self.api(path, query, body)
        except Refused as refused:
            status, retry_after = refused.status, refused.retry_after
            answer = {"error": {"code": refused.code, "message": "example \u001b[2J message"}}
        note("requests.jsonl", {"method": self.command, "path": path, "status": status, "key": has_key})
        told = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_POST = do_PUT = run

    def api(self, path, query, body):
        if path.startswith("/api/v3/"):
            return self.virustotal(path.removeprefix("/api/v3/"), body)
        if path.startswith("/_ah/upload/"):
            if self.command != "POST" or path not in places:
                raise Refused(404, "NotFoundError")
            return self.form(body, places.pop(path))
        return self.vile(path, query, body)

    def virustotal(self, path, body):
        audience = "private" if path.startswith("private/") else "public"
        path = path.removeprefix("private/")
        if self.command == "POST" and path == "files":
            if len(body) > DIRECT_MAX:
                raise Refused(413, "PayloadTooLargeError")
            return self.form(body, audience)
        if self.command == "GET" and path == "files/upload_url":
            place = "/_ah/upload/" + secrets.token_urlsafe(24)
            places[place] = audience
            return {"data": f"http://127.0.0.1:{port}{place}"}
        if self.command == "GET" and path.startswith("files/") and path[6:] in lines("known"):
            return {"data": {"type": "file", "id": path[6:], "attributes": {
                "sha256": path[6:], "last_analysis_date": 1774267200, "last_analysis_stats": {"malicious": 60, "undetected": 10}}}}
        raise Refused(404, "NotFoundError")

    def form(self, body, audience):
        name, content = form_file(self.headers.get("Content-Type", ""), body)
        note("received.jsonl", {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "as": audience})
        id = base64.b64encode(f"{hashlib.md5(content).hexdigest()}:1774267200".encode()).decode()
        return {"data": {"type": "private_analysis" if audience == "private" else "analysis", "id": id}}

    def vile(self, path, query, body):
        if (self.command, path) == ("GET", "/v1/files"):
            wanted = query.get("sha256", [None])[0]
            known = [{"id": "fil_" + hash[:8], "sha256": hash, "status": "completed"} for hash in lines("known")]
            return {"files": [file for file in known if wanted in (None, file["sha256"])], "nextCursor": None}
        if self.command != "POST" or path not in ("/v1/upload", "/v1/upload/complete"):
            raise Refused(404, "not_found")
        asked = json.loads(body)
        if path == "/v1/upload":
            if not (re.fullmatch("[0-9a-f]{64}", asked["sha256"]) and asked["fileName"] and asked["contentType"]):
                raise Refused(400, "bad_request")
            place = "/bucket/" + secrets.token_urlsafe(24)
            places[place] = asked
            return {"uploadUrl": f"http://127.0.0.1:{storage_port}{place}?X-Signature=abc"}
        if asked["sha256"] not in arrived:
            raise Refused(400, "upload_missing")
        note("received.jsonl", arrived.pop(asked["sha256"]))
        return {"id": "fil_" + asked["sha256"][:8], "status": "queued"}

    def storage(self, path, body):
        asked = places.pop(path, None) if self.command == "PUT" else None
        if asked is None or self.headers.get("Content-Type") != asked["contentType"]:
            raise Refused(403, "AccessDenied")
        sha256 = hashlib.sha256(body).hexdigest()
        if sha256 != asked["sha256"]:
            raise Refused(400, "BadDigest")
        arrived[sha256] = {"name": asked["fileName"], "size": len(body), "sha256": sha256, "as": "private"}
        return {}

    def log_message(self, *_):
        pass


servers = [ThreadingHTTPServer(("127.0.0.1", number), Handler) for number in (port, storage_port)]
threading.Thread(target=servers[1].serve_forever, daemon=True).start()
print("the platforms are ready", file=sys.stderr, flush=True)
servers[0].serve_forever()
