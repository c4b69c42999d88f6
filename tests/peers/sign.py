#!/usr/bin/env python3
"""Signs a body with a third-party library and prints the request headers as JSON.
Usage: $PEERS/venv/bin/python sign.py standard-webhooks|svix|stripe BODY_FILE SECRET ID UNIX_SECONDS   (stripe does not use ID; the github scheme is in sign.mjs)"""
import datetime
import json
import sys


def standard_webhooks(body, secret, id, seconds):
    from standardwebhooks.webhooks import Webhook
    time = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    return {"webhook-id": id, "webhook-timestamp": seconds, "webhook-signature": Webhook(secret).sign(id, time, body)}


def svix(body, secret, id, seconds):
    from svix.webhooks import Webhook
    time = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    return {"svix-id": id, "svix-timestamp": seconds, "svix-signature": Webhook(secret).sign(id, time, body)}


def stripe(body, secret, id, seconds):
    from stripe import WebhookSignature
    return {"stripe-signature": WebhookSignature.generate_signature_header(body, secret, timestamp=int(seconds))}


SCHEMES = {"standard-webhooks": standard_webhooks, "svix": svix, "stripe": stripe}
if len(sys.argv) != 6 or sys.argv[1] not in SCHEMES:
    sys.exit(__doc__)
with open(sys.argv[2], encoding="utf-8", newline="") as f:
    print(json.dumps(SCHEMES[sys.argv[1]](f.read(), *sys.argv[3:])))
