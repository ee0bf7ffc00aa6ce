"""Publishes with a stock client through the function library, in pipelines, and prints the ids.

fcall.py PORT STREAM COUNT: event N has N as its data.
"""

import sys

import redis

port, stream, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
client = redis.Redis(port=port, decode_responses=True)
base = f"whimbrel:{{{stream}}}"
keys = [f"{base}:events", f"{base}:nodes", f"{base}:meta", f"{base}:collapse", f"{base}:once:-"]
for start in range(0, count, 50):
    with client.pipeline(transaction=False) as pipe:
        for number in range(start, min(start + 50, count)):
            pipe.fcall("whimbrel_publish", len(keys), *keys, str(number))
        for event_id in pipe.execute():
            print(event_id)
