#!/usr/bin/env python3
"""What streams and connected devices take of Redis' memory: docs/sizing.md has the figures.

    bench/redis_memory.py target/release/whimbrel

Starts a redis-server and a node for each line that it prints, on free ports.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

STREAMS, BATCH = 2000, 500


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(done, what):
    for _ in range(300):
        try:
            if done():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"never came true: {what}")


class Pair:
    """A Redis and a node on it."""

    def __init__(self, program, redis_arguments):
        self.redis_port, self.port = free_port(), free_port()
        self.redis = subprocess.Popen(
            ["redis-server", "--port", str(self.redis_port), "--save", "", *redis_arguments], stdout=subprocess.DEVNULL
        )
        until(lambda: socket.create_connection(("127.0.0.1", self.redis_port)).close() is None, "Redis answers")
        settings = {
            "WHIMBREL_LISTEN": f"127.0.0.1:{self.port}",
            "WHIMBREL_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}",
            "WHIMBREL_LOG": "error",
        }
        self.node = subprocess.Popen([program, "serve"], env=os.environ | settings)
        until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready").status == 200, "the node is ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.node.kill()
        self.redis.kill()
        self.node.wait()
        self.redis.wait()

    def used(self):
        with socket.create_connection(("127.0.0.1", self.redis_port)) as redis:
            redis.sendall(b"INFO memory\r\n")
            text = redis.recv(65536).decode()
        return int(text.split("used_memory:")[1].split()[0])

    def publish(self, size, each):
        devices = [f"user-{number}" for number in range(STREAMS)]
        for first in range(0, STREAMS, BATCH):
            events = [
                {"device": device, "data": "x" * (size - 2)}
                for device in devices[first : first + BATCH]
                for _ in range(each)
            ]
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/events", json.dumps(events).encode())
            results = json.load(urllib.request.urlopen(request))["results"]
            assert all("id" in result for result in results), results[0]

    def listen(self):
        connections = []
        for number in range(STREAMS):
            connection = socket.create_connection(("127.0.0.1", self.port))
            connection.sendall(f"GET /v1/sse?device=user-{number} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
            assert connection.recv(64).startswith(b"HTTP/1.1 200")
            connections.append(connection)
        return connections


def streams(program, size, redis_arguments):
    with Pair(program, redis_arguments) as pair:
        empty = pair.used()
        pair.publish(size, 1)
        one = pair.used()
        for _ in range(11):
            pair.publish(size, 9)
        hundred = pair.used()
    first, further = (one - empty) / STREAMS, (hundred - one) / STREAMS / 99
    print(f"{size} bytes, {' '.join(redis_arguments) or 'defaults'}: {first:.0f} B a stream with one event, {further:.0f} B each further event")


def connected(program):
    with Pair(program, ["--stream-node-max-bytes", "512"]) as pair:
        empty = pair.used()
        connections = pair.listen()
        # Connects go to the lifecycle topic a moment later.
        time.sleep(5)
        print(f"a connected device without events: {(pair.used() - empty) / len(connections):.0f} B")


if len(sys.argv) != 2:
    raise SystemExit(__doc__)
for size in (100, 200, 1000):
    streams(sys.argv[1], size, ["--stream-node-max-bytes", "512"])
streams(sys.argv[1], 200, [])
connected(sys.argv[1])
