"""A lamp that carries out its commands, and acknowledges them.

lamp.py WHIMBREL_URL NAME
"""

import json
import sys
import time
from urllib.request import Request, urlopen

SILENCE_SECONDS = 60  # two ping intervals and a little: then the connection is dead, whatever the socket says

url, name = sys.argv[1:]
device = f"lamp-{name}"


def post(path, body):
    request = Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return urlopen(request, timeout=10).read()


def events(answer):
    """The events of an SSE stream: (id, type, data)."""
    fields = {}
    for line in answer:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if not line.strip():
            if "data" in fields:
                yield fields.get("id"), fields.get("event", "message"), fields["data"]
            fields = {}
        elif key in ("id", "event"):
            fields[key] = value
        elif key == "data":
            fields["data"] = "\n".join(filter(None, [fields.get("data"), value]))


def listen():
    """Goes on behind what was acknowledged, which is kept for us."""
    with urlopen(f"{url}/v1/sse?device={device}&after=ack", timeout=SILENCE_SECONDS) as answer:
        for id, type, data in events(answer):
            if type == "switch":
                on = json.loads(data)["on"]
                print("on" if on else "off", flush=True)
                post(f"/v1/topics/{device}/events?type=state&collapse=state", {"on": on})
                post(f"/v1/devices/{device}/ack", {"id": id})


while True:
    try:
        listen()
    except OSError as error:
        print(f"connecting again: {error}", file=sys.stderr)
    time.sleep(1)
