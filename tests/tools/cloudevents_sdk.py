"""Holds a node to the CloudEvents SDK: what the SDK sends arrives, and it reads what comes back.

The only argument is the address of the node.
"""

import json
import sys
from datetime import datetime, timedelta, timezone

import requests
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent

URL = sys.argv[1]


def event(number, data, **more):
    time = datetime(2025, 11, 22, 7, 3, 20, 123456, timezone(timedelta(hours=1)))
    attributes = {"specversion": "1.0", "id": f"é {number}", "source": "/shop", "type": "com.example.order", "time": time}
    return CloudEvent({**attributes, "subject": 'with "quotes", 100% and €', "partitionkey": "a", **more}, data)


EVENTS = [
    event(1, {"order": 17, "text": "Grüße"}),
    event(2, {"order": 18}, datacontenttype="application/vnd.example+json"),
    event(3, "Grüße\n", datacontenttype="text/plain"),
    event(4, b"\x00\x01\xff", datacontenttype="application/octet-stream"),
    event(5, None),
]


def check(sent, read):
    """Whether what was read is what was sent, and where the node put it."""
    message = http.HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(read).encode())
    received = http.from_structured_event(message)
    attributes = dict(received.get_attributes())
    placed = attributes.pop("whimbrelstream"), attributes.pop("whimbrelid")
    assert placed[0].startswith("topic:") and "-" in placed[1], placed
    assert attributes == dict(sent.get_attributes()), (attributes, sent.get_attributes())
    assert received.get_data() == sent.get_data(), (received.get_data(), sent.get_data())


def over_sse(topic, count):
    address = f"{URL}/v1/sse?topic={topic}&format=cloudevents&after=earliest&types=com.example.order"
    with requests.get(address, stream=True, timeout=30) as answer:
        lines = (line for line in answer.iter_lines(chunk_size=1) if line.startswith(b'data: {"specversion"'))
        return [json.loads(next(lines).removeprefix(b"data: ")) for _ in range(count)]


for topic, written in (("binary", http.to_binary_event), ("structured", http.to_structured_event)):
    for sent in EVENTS:
        message = written(sent)
        address = f"{URL}/v1/topics/{topic}/cloudevents"
        answer = requests.post(address, data=message.body, headers=message.headers, timeout=30)
        assert (answer.status_code, answer.content) == (201, b""), (answer.status_code, answer.text)
    history = requests.get(f"{URL}/v1/topics/{topic}/events?format=cloudevents", timeout=30).json()
    for read in (history, over_sse(topic, len(EVENTS))):
        for pair in zip(EVENTS, read, strict=True):
            check(*pair)

# And what was published as anything but a CloudEvent.
requests.post(f"{URL}/v1/topics/plain/events?type=badge", data="[1]", timeout=30)
[plain] = requests.get(f"{URL}/v1/topics/plain/events?format=cloudevents", timeout=30).json()
plain = http.from_structured_event(http.HTTPMessage({}, json.dumps(plain).encode()))
assert (plain.get_type(), plain.get_source(), plain.get_data()) == ("badge", "/v1/topics/plain", [1])
