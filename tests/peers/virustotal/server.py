#!/usr/bin/env python3
"""A VirusTotal of API v3 on loopback, for tests. Written from VirusTotal's reference; its own client (vt-py) has to accept it.

usage: server.py DIR PORT

DIR is read at each request: `keys` (one a line, `KEY` or `KEY inactive` or `KEY forbidden`), `objects.json` ({path: answer}), `notifications.jsonl`
(an object a line, with context_attributes), `errors` (lines `PART-OF-PATH CODE`: such paths answer this error), `quota` (requests that are
allowed an hour, 360000 by default), `used` (how many of them others had before). Every request is a line of DIR/requests.jsonl.
"""
import base64, json, os, re, sys, threading, time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

PREFIX = "/api/v3/"
# Code -> status, from the reference's page on errors.
STATUS = {
    "BadRequestError": 400, "InvalidArgumentError": 400, "NotAvailableYet": 400, "UnselectiveContentQueryError": 400,
    "UnsupportedContentQueryError": 400, "AuthenticationRequiredError": 401, "UserNotActiveError": 401,
    "WrongCredentialsError": 401, "ForbiddenError": 403, "NotFoundError": 404, "AlreadyExistsError": 409,
    "FailedDependencyError": 424, "QuotaExceededError": 429, "TooManyRequestsError": 429, "TransientError": 503,
    "DeadlineExceededError": 504,
}
PAGE_MAX = 40
FORGET = 7 * 86400

folder = sys.argv[1]
lock = threading.Lock()
used = {}


class Refused(Exception):
    def __init__(self, code, message="example message"):
        self.code, self.message = code, message


def read(name, default=""):
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return default


def key_of(headers):
    key = headers.get("x-apikey")
    if not key:
        raise Refused("AuthenticationRequiredError")
    for line in read("keys").splitlines():
        name, _, state = line.partition(" ")
        if name == key:
            if state == "inactive":
                raise Refused("UserNotActiveError")
            return key, state
    raise Refused("WrongCredentialsError", "Wrong API key")


def since_of(text):
    """`date:2026-03-24T11:58:20+`: from then on, inclusive; `-`: up to then."""
    match = re.fullmatch(r"date:(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)([+-])", text)
    if not match:
        raise Refused("BadRequestError", "unknown filter")
    at = datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc).timestamp()
    return (lambda date: date >= at) if match[2] == "+" else (lambda date: date <= at)


def ioc_stream(query):
    limit = int(query.get("limit", "10"))
    if not 1 <= limit <= PAGE_MAX:
        raise Refused("InvalidArgumentError", "limit is 1 to 40")
    order = query.get("order", "date-")
    if order not in ("date+", "date-"):
        raise Refused("InvalidArgumentError", "order is date+ or date-")
    wanted = since_of(query["filter"]) if query.get("filter") else lambda date: True
    entries = [json.loads(line) for line in read("notifications.jsonl").splitlines() if line]
    date = lambda entry: entry["context_attributes"]["notification_date"]
    entries = [entry for entry in entries if date(entry) > time.time() - FORGET and wanted(date(entry))]
    entries.sort(key=lambda entry: (date(entry), entry["context_attributes"]["notification_id"]), reverse=order == "date-")
    return page(entries, limit, query, [query.get("filter", ""), order])


def page(entries, limit, query, question):
    start = 0
    if query.get("cursor"):
        try:
            of, start = json.loads(base64.urlsafe_b64decode(query["cursor"]))
        except ValueError:
            raise Refused("InvalidArgumentError", "not a cursor") from None
        # A cursor goes on with the question that it came from, and with no other.
        if of != question:
            raise Refused("InvalidArgumentError", "the cursor is of another question")
    part = entries[start:start + limit]
    answer = {"data": part, "meta": {"count": len(entries)}, "links": {}}
    if start + limit < len(entries):
        cursor = json.dumps([question, start + limit]).encode()
        answer["meta"]["cursor"] = base64.urlsafe_b64encode(cursor).decode()
        # vt-py takes the end of a list from the absence of this.
        answer["links"]["next"] = "https://www.virustotal.com" + PREFIX
    return answer


def answer(path, query, key, state):
    for line in read("errors").splitlines():
        part, _, code = line.partition(" ")
        if part and part in path:
            raise Refused(code)
    quota, by_others = int(read("quota", "360000")), int(read("used", "0"))
    match = re.fullmatch(r"users/([^/]+)/overall_quotas", path)
    if match:
        if match[1] != key:
            raise Refused("ForbiddenError")
        hourly = {"allowed": quota, "used": by_others + used.get(key, 0)}
        return {"data": {"api_requests_hourly": {"user": hourly, "group": {**hourly, "inherited_from": "example-group"}}}}
    with lock:
        if by_others + used.get(key, 0) >= quota:
            raise Refused("QuotaExceededError", "Quota exceeded")
        used[key] = used.get(key, 0) + 1
    if state == "forbidden":
        raise Refused("ForbiddenError")
    if path == "ioc_stream":
        return ioc_stream(query)
    objects = json.loads(read("objects.json", "{}"))
    if path in objects:
        return objects[path]
    raise Refused("NotFoundError")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        parts = urlsplit(self.path)
        path, status = unquote(parts.path), 200
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        try:
            key, state = key_of(self.headers)
            if not path.startswith(PREFIX):
                raise Refused("NotFoundError")
            body = answer(path[len(PREFIX):], query, key, state)
        except Refused as refused:
            status = STATUS[refused.code]
            body = {"error": {"code": refused.code, "message": refused.message}}
        self.note(path, query, status)
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def note(self, path, query, status):
        # The key may stand in the path of the quotas; it is not written down.
        path = re.sub(r"users/[^/]+", "users/KEY", path)
        line = {"path": path, "query": query, "status": status, "agent": self.headers.get("User-Agent", "")}
        with lock, open(os.path.join(folder, "requests.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
