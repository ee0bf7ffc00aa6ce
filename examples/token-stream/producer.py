"""Pushes a text while it is written, a word at a time, straight into Redis.

MODEL | producer.py REDIS_URL TOPIC

It holds the topic's lease meanwhile: when this program dies before the end, readers are notified.
"""

import json
import os
import re
import sys
from threading import Event, Thread

import redis

SECONDS = 10  # after which readers are notified, unless we renew the lease
KEYS = ("whimbrel:{producers}:leases", "whimbrel:{producers}:deadlines")

url, topic = sys.argv[1:]
client = redis.Redis.from_url(url, decode_responses=True)
done = Event()


def lease(*words):
    return client.fcall("whimbrel_lease", 2, *KEYS, words[0], f"topic:{topic}", *words[1:])


def stay(held):
    """Renews the lease until we are done."""
    while not done.wait(SECONDS / 3):
        try:
            lease("renew", held, SECONDS)
        except redis.ResponseError as error:
            print(f"readers were notified that we are gone: {error}", file=sys.stderr)
            os._exit(1)
        except redis.ConnectionError:
            pass  # whether we are late is for Redis to say


def push(data, kind):
    client.xadd("whimbrel:ingress", {"topic": topic, "type": kind, "data": json.dumps(data)})


held = lease("take", SECONDS)
keeper = Thread(target=stay, args=(held,), daemon=True)
keeper.start()
count = 0
for line in sys.stdin:
    for token in re.findall(r"\s*\S+|\s+", line):
        push(token, "token")
        count += 1
push({"tokens": count}, "end")
done.set()
keeper.join()
lease("end", held)
