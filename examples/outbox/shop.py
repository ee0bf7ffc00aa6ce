"""The shop: its page, and POST /orders. It knows nothing of Whimbrel.

shop.py PORT
"""

import json
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


def place(order):
    """Runs order.sql, which writes the event in the transaction of the order."""
    values = [f"item={order['item']}", f"pieces={int(order['pieces'])}"]
    psql = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-v", values[0], "-v", values[1], "-f", "order.sql"]
    return subprocess.run(psql, capture_output=True, text=True, timeout=30)


class Handler(SimpleHTTPRequestHandler):
    def do_POST(self):
        if self.path != "/orders":
            return self.send_error(404)
        try:
            order = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), 10_000)))
            done = place(order)
        except (KeyError, TypeError, ValueError):
            return self.answer(400, {"error": "an order is an item and a number of pieces"})
        if done.returncode:
            return self.answer(409, {"error": done.stderr.strip().splitlines()[0]})
        self.answer(201, {"order": int(done.stdout)})

    def answer(self, status, body):
        body = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
