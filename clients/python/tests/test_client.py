"""The client against real nodes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from whimbrel_client import Draft, Event, Gap, Published, Whimbrel, WhimbrelError
from whimbrel_client.sse import blocks

PROGRAM = os.environ.get("WHIMBREL_PROGRAM", str(Path(__file__).parents[3] / "target/debug/whimbrel"))
PATIENCE = 30.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def eventually(what: str, probe: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.02)


def answers(url: str) -> bool:
    with suppress(OSError):
        return bool(urllib.request.urlopen(url).status == 200)
    return False


class Node:
    """A node that can be killed and started again on its port."""

    def __init__(self, redis: str, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL_")}
        self.environment |= {
            "WHIMBREL_LISTEN": f"127.0.0.1:{port}",
            "WHIMBREL_REDIS_URL": redis,
            "WHIMBREL_RETENTION": "topic:short*=5/3600 *=100000/3600",
            "WHIMBREL_PING_SECONDS": "1",
        }
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([PROGRAM, "serve"], env=self.environment, stderr=subprocess.DEVNULL)
        eventually("the node answers", lambda: answers(f"{self.url}/health/ready"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    port = free_port()
    arguments = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        started: list[Node] = []
        try:
            started += [Node(redis, free_port()) for _ in range(2)]
            yield started
        finally:
            for node in started:
                node.kill()


class Proxy:
    """Passes connections on to one of the nodes; can be told to cut, to hang, and to answer with HTML."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.mode = "pass"
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.mode == "html":
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>")
            await writer.drain()
            writer.close()
            return
        for node in self.nodes:
            with suppress(OSError):
                far = await asyncio.open_connection("127.0.0.1", node.port)
                self.writers |= {writer, far[1]}
                await asyncio.gather(self.copy(reader, far[1], "out"), self.copy(far[0], writer, "in"))
                return
        writer.close()

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.mode != "hang" and (self.mode, way) != ("deaf", "in"):
                    writer.write(data)
        writer.close()

    def cut(self) -> None:
        for writer in self.writers:
            writer.close()
        self.writers.clear()


@asynccontextmanager
async def proxy(nodes: list[Node]) -> AsyncIterator[tuple[Proxy, str]]:
    made = Proxy(nodes)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    try:
        yield made, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        made.cut()
        server.close()


async def until(what: str, probe: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < end, f"never came true: {what}"
        await asyncio.sleep(0.01)


async def take(listener: Any, count: int) -> list[Event]:
    async def all() -> list[Event]:
        return [await anext(listener) for _ in range(count)]

    return await asyncio.wait_for(all(), PATIENCE)


def test_events_come_in_order_once_and_none_is_lost_while_nodes_are_killed(nodes: list[Node]) -> None:
    async def run() -> None:
        async with proxy(nodes) as (_, url), Whimbrel(url) as whimbrel:
            streams = ["topic:killed", "device:killed"]
            listener = whimbrel.listen(*streams, after="earliest")
            got: dict[str, list[int]] = {stream: [] for stream in streams}
            sent = 0
            stop = False

            async def publish() -> None:
                nonlocal sent
                while not stop:
                    for stream in streams:
                        await whimbrel.publish(stream, sent)
                    sent += 1

            async def listen() -> None:
                async for event in listener:
                    got[event.stream].append(event.data)

            tasks = [asyncio.create_task(publish()), asyncio.create_task(listen())]
            for node in [nodes[0], nodes[1], nodes[0]]:
                before = len(got[streams[0]])
                await until("events come", lambda: len(got[streams[0]]) > before + 20)
                node.kill()
                await asyncio.to_thread(node.start)
            stop = True
            await tasks[0]
            await until("all are there", lambda: all(len(numbers) >= sent for numbers in got.values()))
            tasks[1].cancel()
            assert list(got.values()) == [list(range(sent))] * 2

    asyncio.run(run())


def test_a_cursor_goes_on_behind_what_was_handled(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            for stream in ("topic:cursor", "topic:cursor2"):
                await whimbrel.publish_batch([Draft(stream, n) for n in range(10)])
            cursor, got = "earliest", []
            for count in (1, 7, 12):
                listener = whimbrel.listen("topic:cursor", "topic:cursor2", after=cursor)
                got += await take(listener, count)
                # The one that is being handled comes again, and is dropped here.
                cursor = listener.cursor
                await listener.aclose()
                if count != 12:
                    got.pop()
            rest = whimbrel.listen("topic:cursor", "topic:cursor2", after=cursor)
            got = got[:-1] + await take(rest, 3)
            for stream in ("topic:cursor", "topic:cursor2"):
                assert [event.data for event in got if event.stream == stream] == list(range(10))

    asyncio.run(run())


def test_data_comes_as_it_was_published(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            data = ["line\nbreak\r\n", "\u2028\u2029\x85\x00", "🐦 naïve", {"a": [1, None, "x" * 60_000]}, "", 0, None]
            for one in data:
                await whimbrel.publish("topic:data", one, type="any")
            events = await take(whimbrel.listen("topic:data", after="earliest"), len(data))
            assert [event.data for event in events] == data
            assert {event.type for event in events} == {"any"}

    asyncio.run(run())


def test_a_gap_is_shown_in_its_place(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            first = await whimbrel.publish("topic:short", 0)
            await whimbrel.publish_batch([Draft("topic:short", n) for n in range(1, 300)])
            gaps: list[Gap] = []
            # The other node has nothing of it in its memory.
            async with Whimbrel(nodes[1].url) as other:
                listener = other.listen("topic:short", after=str(first.id), on_gap=gaps.append)
                event = (await take(listener, 1))[0]
            assert (gaps[0].stream, gaps[0].after, gaps[0].next) == ("topic:short", first.id, event.id)
            assert gaps[0].reason == "trimmed"

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["html", "hang"])
def test_a_proxy_that_misbehaves_is_waited_for(nodes: list[Node], mode: str) -> None:
    async def run() -> None:
        async with proxy(nodes) as (way, url), Whimbrel(url) as whimbrel, Whimbrel(nodes[0].url) as publisher:
            stream = f"topic:proxy-{mode}"
            listener = whimbrel.listen(stream, silence=2.5)
            waiting = asyncio.create_task(take(listener, 1))
            await until("it is open", lambda: "-" in listener._received)
            way.mode = mode
            if mode == "html":
                way.cut()
            connections = way.connections
            await publisher.publish(stream, "meanwhile")
            await until("another attempt", lambda: way.connections > connections)
            way.mode = "pass"
            way.cut()
            assert [event.data for event in await waiting] == ["meanwhile"]

    asyncio.run(run())


def test_what_is_published_while_no_answer_comes_is_stored_once_and_in_order(nodes: list[Node]) -> None:
    async def run() -> None:
        async with proxy(nodes) as (way, url), Whimbrel(url) as whimbrel, Whimbrel(nodes[0].url) as reader:
            listener = reader.listen("topic:once", after="earliest")
            way.mode = "deaf"
            publishes = [asyncio.create_task(whimbrel.publish("topic:once", n)) for n in range(3)]
            assert [event.data for event in await take(listener, 1)] == [0]
            way.mode = "pass"
            way.cut()
            answers = await asyncio.gather(*publishes)
            assert [answer.duplicate for answer in answers] == [True, False, False]
            assert [event.data for event in await take(listener, 2)] == [1, 2]

    asyncio.run(run())


def test_a_key_stores_an_event_once(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            first = await whimbrel.publish("topic:key", 1, key="once")
            again = await whimbrel.publish("topic:key", 1, key="once")
            assert (again.id, again.duplicate) == (first.id, True)

    asyncio.run(run())


def test_a_bad_entry_of_a_batch_does_not_fail_the_others(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            drafts = [Draft("topic:batch", n) for n in range(1200)]
            drafts[700] = Draft("topic:no spaces", "x")
            outcomes = await whimbrel.publish_batch(drafts)
            assert isinstance(outcomes[700], WhimbrelError) and outcomes[700].code == "invalid-name"
            assert sum(isinstance(outcome, Published) for outcome in outcomes) == 1199

    asyncio.run(run())


def test_a_device_goes_on_behind_what_it_acknowledged(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            await whimbrel.publish_batch([Draft("device:ack", n) for n in range(4)])
            events = await take(whimbrel.listen("device:ack", after="earliest"), 4)
            await whimbrel.ack(events[1])
            assert [event.data for event in await take(whimbrel.listen("device:ack", after="ack"), 2)] == [2, 3]

    asyncio.run(run())


def test_who_is_kicked_does_not_come_back_and_what_is_refused_is_raised(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            listener = whimbrel.listen("device:kicked")
            waiting = asyncio.create_task(take(listener, 1))
            await until("it is open", lambda: "-" in listener._received)
            request = urllib.request.Request(f"{nodes[0].url}/v1/devices/kicked/connections", method="DELETE")
            await asyncio.to_thread(urllib.request.urlopen, request)
            with pytest.raises(WhimbrelError) as kicked:
                await waiting
            assert kicked.value.code == "kicked"
            for refused in (take(whimbrel.listen("topic:no spaces"), 1), whimbrel.publish("topic:no spaces", 1)):
                with pytest.raises(WhimbrelError) as error:
                    await refused
                assert (error.value.status, error.value.code) == (400, "invalid-name")

    asyncio.run(run())


def test_what_is_not_stored_is_published_once(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            listener = whimbrel.listen("topic:typing")
            waiting = asyncio.create_task(take(listener, 1))
            await until("it is open", lambda: "-" in listener._received)
            await whimbrel.publish("topic:typing", "…", ephemeral=True, type="typing")
            event = (await waiting)[0]
            assert (event.type, event.data, event.id) == ("typing", "…", None)

    asyncio.run(run())


def test_an_event_stream_is_read_the_same_however_it_is_cut() -> None:
    text = "retry: 1500\nid: 5-1\nevent: whimbrel:position\ndata: {}\n\n:\n:\ndata: a\u2028b\r\ndata:c\n\ndata: y\n\n"

    async def read(pieces: list[str]) -> list[tuple[str, list[str], str | None, int | None]]:
        async def chunks() -> AsyncIterator[str]:
            for piece in pieces:
                yield piece

        return [(block.type, block.data, block.id, block.retry) async for block in blocks(chunks())]

    expected: list[Any] = [
        ("", [], None, 1500),
        ("whimbrel:position", ["{}"], "5-1", None),
        ("", ["a\u2028b", "c"], None, None),
        ("", ["y"], None, None),
    ]
    assert asyncio.run(read(list(text))) == expected
    for at in range(len(text)):
        assert asyncio.run(read([text[:at], text[at:]])) == expected
