#!/usr/bin/env python3
"""VirusTotal's own client sends a file. usage: client.py URL KEY FILE; prints the analysis as JSON."""
import json, sys
import vt

with vt.Client(sys.argv[2], host=sys.argv[1]) as client, open(sys.argv[3], "rb") as file:
    analysis = client.scan_file(file)
    print(json.dumps({"type": analysis.type, "id": analysis.id}))
