#!/usr/bin/env python3
"""Verifies webhooks with the official library of Standard Webhooks: one JSON object a line in ({"secret", "headers", "body"}), true or false a line out.
Usage: $PEERS/venv/bin/python verify.py < lines"""
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    request = json.loads(line)
    try:
        Webhook(request["secret"]).verify(request["body"], request["headers"])
        print("true")
    except WebhookVerificationError:
        print("false")
