"""The client against real nodes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest
from whimbrel_client import Draft, Event, Gap, Published, Whimbrel, WhimbrelError
from whimbrel_client.transport.parse import blocks
from world import PATIENCE, Node, proxy, take, until


@pytest.mark.parametrize("transport", ["sse", "websocket", "post", ("sse", "websocket", "post")])
def test_events_come_in_order_once_and_none_is_lost_while_nodes_are_killed(
    nodes: list[Node], transport: str | tuple[str, ...]
) -> None:
    async def run() -> None:
        async with proxy(nodes) as (_, url), Whimbrel(url, transport=transport) as whimbrel:
            name = "-".join([transport] if isinstance(transport, str) else transport)
            streams = [f"topic:killed-{name}", f"device:killed-{name}"]
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


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.parametrize("mode", ["html", "hang"])
def test_a_proxy_that_misbehaves_is_waited_for(nodes: list[Node], mode: str, transport: str) -> None:
    async def run() -> None:
        publisher = Whimbrel(nodes[0].url)
        async with proxy(nodes) as (way, url), Whimbrel(url, transport=transport) as whimbrel, publisher:
            stream = f"topic:proxy-{mode}-{transport}"
            listener = whimbrel.listen(stream, silence=2.5)
            waiting = asyncio.create_task(take(listener, 1))
            await until("it is open", lambda: listener.connection)
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


def test_a_device_acknowledges_by_itself_what_it_handled(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            stream = "device:ack-itself"
            sent = [await whimbrel.publish(stream, n) for n in range(200)]

            async def acked() -> Any:
                device = await whimbrel._service.call("GET", "/v1/devices/ack-itself")
                return device["acked"]

            listener = whimbrel.listen(stream, after="earliest", ack=True)
            assert [event.data for event in await take(listener, 100)] == list(range(100))
            # The hundredth is still being handled.
            await listener.aclose()
            assert await acked() == sent[98].id
            again = whimbrel.listen(stream, after="ack", ack=True)
            waiting = asyncio.create_task(take(again, 102))
            end = asyncio.get_running_loop().time() + PATIENCE
            while await acked() != sent[-1].id:
                assert asyncio.get_running_loop().time() < end
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())


def test_an_acknowledgement_is_repeated_until_it_is_answered(nodes: list[Node]) -> None:
    async def run() -> None:
        async with proxy(nodes) as (way, url), Whimbrel(url) as whimbrel, Whimbrel(nodes[0].url) as other:
            await other.publish_batch([Draft("device:ack-again", n) for n in range(2)])
            first, second = await take(whimbrel.listen("device:ack-again", after="earliest"), 2)
            way.mode = "html"
            way.cut()
            connections = way.connections
            acks = [asyncio.create_task(whimbrel.ack(event)) for event in (second, first)]
            await until("it was refused", lambda: way.connections > connections)
            way.mode = "pass"
            await asyncio.gather(*acks)
            await other.publish("device:ack-again", "new")
            assert [event.data for event in await take(other.listen("device:ack-again", after="ack"), 1)] == ["new"]

    asyncio.run(run())


def test_who_is_kicked_does_not_come_back_and_what_is_refused_is_raised(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            listener = whimbrel.listen("device:kicked")
            waiting = asyncio.create_task(take(listener, 1))
            await until("it is open", lambda: listener.connection)
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
            await until("it is open", lambda: listener.connection)
            await whimbrel.publish("topic:typing", "…", ephemeral=True, type="typing")
            event = (await waiting)[0]
            assert (event.type, event.data, event.id) == ("typing", "…", None)

    asyncio.run(run())


def test_a_loop_that_is_left_leaves_nothing_behind(nodes: list[Node]) -> None:
    program = f"""
import asyncio
from whimbrel_client import Whimbrel

async def run():
    async with Whimbrel("{nodes[0].url}") as whimbrel:
        for n in range(3):
            await whimbrel.publish("topic:left", n)
        async for event in whimbrel.listen("topic:left", after="earliest"):
            break
        print(event.data)

asyncio.run(run())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_an_event_stream_is_read_the_same_however_it_is_cut() -> None:
    text = "retry: 1500\nid: 5-1\nevent: whimbrel:position\ndata: {}\n\n:\n:\ndata: a\u2028b\r\ndata:c\n\ndata: y\n\n"

    async def read(pieces: list[str]) -> list[tuple[str, list[str], str | None, int | None]]:
        async def chunks() -> AsyncIterator[str]:
            for piece in pieces:
                yield piece

        return [(block.type, block.data, block.id, block.retry) async for block in blocks(chunks())]

    alive: Any = ("", [], None, None)
    expected: list[Any] = [
        ("", [], None, 1500),
        ("whimbrel:position", ["{}"], "5-1", None),
        alive,
        alive,
        ("", ["a\u2028b", "c"], None, None),
        ("", ["y"], None, None),
    ]
    assert asyncio.run(read(list(text))) == expected
    for at in range(len(text)):
        assert asyncio.run(read([text[:at], text[at:]])) == expected
