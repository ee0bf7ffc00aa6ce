"""Prints a text while it is pushed, from its beginning to its end, however often the connection breaks.

reader.py WHIMBREL_URL TOPIC
"""

import json
import sys
import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

url, topic = sys.argv[1:]
address = f"{url}/v1/sse?topic={quote(topic, safe='')}&after=0-0"
cursor = None  # what the server called the place up to which we have printed
retry = 1.0


def events(response):
    """The events of one connection, as (type, id, data)."""
    global retry
    kind, place, data = "message", None, []
    for line in response:
        name, _, value = line.decode().rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            place = value
        elif name == "data":
            data.append(value)
        elif name == "retry":
            retry = int(value) / 1000
        elif not name and not value and data:
            yield kind, place, json.loads("\n".join(data))
            kind, place, data = "message", None, []


def read():
    """Prints what one connection brings, and says whether that was the end of the text."""
    global cursor
    headers = {"Last-Event-ID": cursor} if cursor else {}
    with urlopen(Request(address, headers=headers), timeout=60) as response:
        for kind, place, data in events(response):
            if kind == "token":
                print(data, end="", flush=True)
            elif kind == "whimbrel:abandoned":
                sys.exit("the text breaks off here: whoever wrote it is gone")
            elif kind == "whimbrel:gap":
                sys.exit(f"a part of the text is no longer kept: {data}")
            cursor = place or cursor
            if kind == "end":
                return True
    return False


while True:
    try:
        if read():
            break
    except HTTPError as error:
        sys.exit(f"refused: {error}")
    except (OSError, HTTPException):
        pass  # cut: go on behind what was printed
    time.sleep(retry)
