"""Adds entries to the ingress stream with a stock client, a pipeline of 20 at a time.

ingress.py PORT FIRST COUNT STREAM...: entry N goes to the N-th of the streams, round and round, with N as its data.
"""

import sys

import redis

port, first, count = map(int, sys.argv[1:4])
streams = sys.argv[4:]
client = redis.Redis(port=port)
for start in range(first, first + count, 20):
    with client.pipeline(transaction=False) as pipe:
        for number in range(start, min(start + 20, first + count)):
            kind, name = streams[number % len(streams)].split(":", 1)
            pipe.xadd("whimbrel:ingress", {kind: name, "data": str(number)})
        pipe.execute()
