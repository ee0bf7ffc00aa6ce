"""Clients in Python, as somebody would use them.

python.py NAME URL TOPIC      prints {"id","data"} of each event, a line each, from the earliest on
"""

import asyncio
import json
import random
import sys
import time

name, url, topic = sys.argv[1:]
address = f"{url}/v1/sse?topic={topic}&after=earliest"


def emit(id, data):
    print(json.dumps({"id": id, "data": data}), flush=True)


def pause():
    return 0.5 + random.random()


def socket_address(after):
    return f"{url.replace('http', 'ws', 1)}/v1/ws?topic={topic}&after={after}"


def httpx_sse():
    import httpx
    from httpx_sse import SSEError, connect_sse

    last = None
    while True:
        try:
            headers = {"last-event-id": last} if last else {}
            with httpx.Client(timeout=60) as http, connect_sse(http, "GET", address, headers=headers) as source:
                for event in source.iter_sse():
                    last = event.id or last
                    if event.event == "message":
                        emit(event.id, event.data)
        except (httpx.HTTPError, SSEError):
            pass
        time.sleep(pause())


def sseclient_py():
    import requests
    import sseclient

    last = None
    while True:
        try:
            headers = {"last-event-id": last} if last else {}
            with requests.get(address, stream=True, headers=headers, timeout=60) as response:
                response.raise_for_status()
                for event in sseclient.SSEClient(response).events():
                    last = event.id or last
                    if event.event == "message":
                        emit(event.id, event.data)
        except requests.RequestException:
            pass
        time.sleep(pause())


def requests_sse():
    import requests
    from requests_sse import EventSource, InvalidContentTypeError, InvalidStatusCodeError

    last = None
    while True:
        try:
            with EventSource(address, latest_event_id=last, timeout=60) as source:
                for event in source:
                    last = event.last_event_id or last
                    if event.type == "message":
                        emit(event.last_event_id, event.data)
        except (requests.RequestException, InvalidStatusCodeError, InvalidContentTypeError):
            pass
        time.sleep(pause())


async def aiohttp_sse_client2():
    import aiohttp
    from aiohttp_sse_client2.client import EventSource

    last = None
    while True:
        try:
            async with EventSource(address, headers={"last-event-id": last} if last else {}) as source:
                async for event in source:
                    last = event.last_event_id or last
                    if event.type is None:
                        emit(event.last_event_id, event.data)
        except (aiohttp.ClientError, ConnectionError):
            pass
        await asyncio.sleep(pause())


async def websockets():
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    after = "earliest"
    while True:
        try:
            async with connect(socket_address(after)) as socket:
                async for text in socket:
                    frame = json.loads(text)
                    if frame["op"] == "event":
                        after = frame["id"]
                        emit(after, json.dumps(frame["data"]))
        except (OSError, WebSocketException):
            pass
        await asyncio.sleep(pause())


def websocket_client():
    import websocket

    after = "earliest"
    while True:
        try:
            socket = websocket.create_connection(socket_address(after), timeout=60)
            while text := socket.recv():
                frame = json.loads(text)
                if frame["op"] == "event":
                    after = frame["id"]
                    emit(after, json.dumps(frame["data"]))
        except (OSError, websocket.WebSocketException):
            pass
        time.sleep(pause())


async def whimbrel(transport=("sse", "websocket", "post")):
    from whimbrel_client import Whimbrel

    async with Whimbrel(url, transport=transport) as client:
        async for event in client.listen(f"topic:{topic}", after="earliest"):
            emit(event.id, json.dumps(event.data))


run = {
    "httpx-sse": httpx_sse,
    "sseclient-py": sseclient_py,
    "requests-sse": requests_sse,
    "aiohttp-sse-client2": aiohttp_sse_client2,
    "websockets": websockets,
    "websocket-client": websocket_client,
    "whimbrel": whimbrel,
    "whimbrel-websocket": lambda: whimbrel("websocket"),
}[name]()
if run:
    asyncio.run(run)
