"""Takes questions and publishes the answers while they are written, a token at a time.

answers.py WHIMBREL_URL PORT

POST /ask {"question": …} gives {"id": …}; POST /stop {"id": …} ends that answer. Tokens go to topic:answers:ID, each under
its number as idempotency key, so a token that is sent again is not stored again.
"""

import json
import re
import sys
import time
import uuid
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

LEASE_SECONDS = 10  # after which readers are notified that the answer breaks off, unless we renew the lease

url, port = sys.argv[1], int(sys.argv[2])
stops = {}


def model(question):
    """A stand-in for a model: a slow one."""
    text = f"You asked: {question} " + " ".join(f"This is sentence {number} of a long answer." for number in range(1, 41))
    for token in re.findall(r"\s*\S+", text):
        time.sleep(0.02)
        yield token


def call(method, path, body=None, key=None):
    """Repeats what had no answer. The node may be away for a moment."""
    request = Request(url + path, json.dumps(body).encode() if body is not None else None, method=method)
    request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Idempotency-Key", key)
    while True:
        try:
            with urlopen(request, timeout=10) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as error:
            if error.code < 500:
                raise
        except OSError:
            pass
        time.sleep(0.5)


def write(topic, question, stop):
    lease = call("PUT", f"/v1/topics/{topic}/lease", {"seconds": LEASE_SECONDS})["lease"]
    renewed, count, stopped = time.monotonic(), 0, False
    for token in model(question):
        if stopped := stop.is_set():
            break
        call("POST", f"/v1/topics/{topic}/events?type=token", token, key=f"{topic}-{count}")
        count += 1
        if time.monotonic() - renewed > LEASE_SECONDS / 3:
            call("PUT", f"/v1/topics/{topic}/lease", {"seconds": LEASE_SECONDS, "lease": lease})
            renewed = time.monotonic()
    call("POST", f"/v1/topics/{topic}/events?type=end", {"tokens": count, "stopped": stopped}, key=f"{topic}-end")
    call("DELETE", f"/v1/topics/{topic}/lease?lease={lease}")
    stops.pop(topic, None)


class Handler(SimpleHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/ask":
            asked["id"] = uuid.uuid4().hex
            topic = f"answers:{asked['id']}"
            stops[topic] = Event()
            Thread(target=write, args=(topic, asked["question"], stops[topic]), daemon=True).start()
        elif stop := stops.get(f"answers:{asked['id']}"):
            stop.set()
        body = json.dumps({"id": asked["id"]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=".")).serve_forever()
