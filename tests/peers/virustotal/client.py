#!/usr/bin/env python3
"""What VirusTotal's own client (PyPI vt-py) reads from a server, as one JSON object.

usage: client.py URL KEY SHA256 ANALYSIS
"""
import json, sys
import vt

url, key, sha256, analysis = sys.argv[1:5]


def error_of(client, path):
    try:
        client.get_object(path)
        return None
    except vt.APIError as error:
        return error.code


with vt.Client(key, host=url) as client:
    file = client.get_object(f"/files/{sha256}")
    stream = client.iterator("/ioc_stream", params={"order": "date+"}, batch_size=2)
    entries = list(stream)
    found = {
        "type": file.type,
        "malicious": file.last_analysis_stats["malicious"],
        "analysis": client.get_object(f"/analyses/{analysis}").status,
        "notifications": [entry.context_attributes["notification_id"] for entry in entries],
        "unknown": error_of(client, "/files/" + "0" * 64),
        "quotas": client.get_data(f"/users/{key}/overall_quotas")["api_requests_hourly"]["user"]["allowed"],
    }
with vt.Client("k" * 64, host=url) as client:
    found["wrong_key"] = error_of(client, f"/files/{sha256}")
print(json.dumps(found))
