"""Holds the state of some machines, changes it, and publishes each change.

backend.py WHIMBREL_URL PORT

The state is changed and its change is published under one lock. A snapshot takes the same lock for the cursor and the
state, so it contains exactly what was published up to its cursor.
"""

import json
import random
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.request import Request, urlopen

url, port = sys.argv[1], int(sys.argv[2])
lock = Lock()
machines = {f"press-{number}": {"load": 50, "parts": 0} for number in range(1, 7)}


def publish(name, value):
    """Publishes until it is stored. The key makes a repeat harmless."""
    key = f"{name}-{time.time_ns()}"
    body = json.dumps({"machine": name, **value}).encode()
    request = Request(f"{url}/v1/topics/machines/events?collapse={name}", body)
    request.add_header("Content-Type", "application/json")
    request.add_header("Idempotency-Key", key)
    while True:
        try:
            return urlopen(request, timeout=10).read()
        except OSError as error:
            print(f"trying again: {error}", file=sys.stderr)
            time.sleep(1)


def work():
    while True:
        name = random.choice(list(machines))
        with lock:
            old = machines[name]
            load = min(100, max(0, old["load"] + random.randint(-15, 15)))
            machines[name] = {"load": load, "parts": old["parts"] + load // 10}
            publish(name, machines[name])
        time.sleep(0.1)


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/machines.json":
            return super().do_GET()
        with lock:
            cursor = json.load(urlopen(f"{url}/v1/cursor?topic=machines", timeout=10))["cursor"]
            body = json.dumps({"cursor": cursor, "machines": machines}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


Thread(target=work, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=".")).serve_forever()
