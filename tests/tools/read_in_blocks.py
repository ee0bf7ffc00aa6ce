"""Prints the data of each event as `requests` gives it to a program: the client that many others in Python stand on.

read_in_blocks.py URL
"""

import sys

import requests

with requests.get(sys.argv[1], stream=True, timeout=60, headers={"Accept": "text/event-stream"}) as response:
    for line in response.iter_lines():
        if line.startswith(b"data: "):
            print(line.removeprefix(b"data: ").decode(), flush=True)
print("the end")
