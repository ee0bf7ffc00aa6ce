"""Pushes a text while it is written, a word at a time, straight into Redis.

MODEL | producer.py REDIS_URL TOPIC
"""

import json
import re
import sys

import redis

url, topic = sys.argv[1:]
client = redis.Redis.from_url(url)


def push(data, kind):
    client.xadd("whimbrel:ingress", {"topic": topic, "type": kind, "data": json.dumps(data)})


count = 0
for line in sys.stdin:
    for token in re.findall(r"\s*\S+|\s+", line):
        push(token, "token")
        count += 1
push({"tokens": count}, "end")
