"""An application with a login of its own, whose session cookie is all that its pages need to listen to Whimbrel.

    python3 backend.py PORT WHIMBREL_URL

The node asks `/authorize` who a session belongs to. The only thing here that a real application would not have is
its login, which believes every name.
"""
import base64
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from html import escape
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

SECRET = base64.b64decode(os.environ["WHIMBREL_WEBHOOK_SECRET"].removeprefix("whsec_"))
WHIMBREL = sys.argv[2]
SESSIONS = {}  # of each session, who it is: a database in a real application

LOGIN = '<form method="post" action="/login"><input name="user" placeholder="your name"><button>Log in</button></form>'
INBOX = """<p>Hello {user}. <button id="out">Log out</button></p><ol id="events"></ol>
<script>
  // The browser sends the session's cookie along, as the node's host is the same; ports make no other site.
  const source = new EventSource("{whimbrel}/v1/sse?device={user}&topic=news", {{ withCredentials: true }});
  const show = text => document.querySelector("#events").append(Object.assign(document.createElement("li"), {{ textContent: text }}));
  source.onopen = () => show("connected");
  source.onmessage = event => show(event.data);
  document.querySelector("#out").onclick = () => fetch("/logout", {{ method: "POST" }}).then(() => location.reload());
</script>"""


def is_from_whimbrel(headers, body):
    """Whether a question is signed with the secret that both know: https://www.standardwebhooks.com"""
    identifier, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "0")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > 300:
        return False
    signed = f"{identifier}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    return any(hmac.compare_digest(expected, given) for given in headers.get("webhook-signature", "").split())


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def user(self):
        """Who asks, by the session's cookie."""
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        except CookieError:
            return None
        return SESSIONS.get(cookie.value) if cookie else None

    def do_GET(self):
        user = self.user()
        page = INBOX.format(user=escape(user), whimbrel=escape(WHIMBREL)) if user else LOGIN
        self.answer(200, "<!doctype html><title>Inbox</title>" + page, "text/html; charset=utf-8")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/authorize":
            self.authorize(body)
        elif self.path == "/login":
            user = parse_qs(body.decode()).get("user", [""])[0]
            if not user.isalnum() or not user.isascii():
                return self.answer(400, "letters and digits, please")
            session = secrets.token_urlsafe(32)
            SESSIONS[session] = user
            # A new session has a new cookie: answers about the one before may be kept for some seconds.
            cookie = f"session={session}; Path=/; HttpOnly; SameSite=Lax"
            self.answer(303, "", **{"Location": "/", "Set-Cookie": cookie})
        elif self.path == "/logout":
            SESSIONS.pop(SimpleCookie(self.headers.get("Cookie", ""))["session"].value, None)
            self.answer(204, "")
        else:
            self.answer(404, "")

    def authorize(self, body):
        if not is_from_whimbrel(self.headers, body):
            return self.answer(400, "not signed by Whimbrel")
        user = self.user()
        if user is None:
            return self.answer(401, "")
        answer = {
            "device": user,
            "subscribe": ["topic:news"],
            "publish": [f"topic:from:{user}"],
            "expires": time.time() + 300,  # then the client comes back, and is asked about again
            "info": {"name": user},
        }
        self.answer(200, json.dumps(answer), "application/json")

    def answer(self, status, text, kind="text/plain", **headers):
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Application)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
