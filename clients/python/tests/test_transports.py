"""The ways to listen, one in place of the other, and what becomes of a connection while the machine sleeps."""

from __future__ import annotations

import asyncio
import time

import pytest
from whimbrel_client import Draft, Event, Whimbrel, WhimbrelError, wake
from whimbrel_client.life import ANSWER, GRACE, OPENING, Life
from whimbrel_client.position import Position
from world import Node, proxy, take, until


def test_a_transport_that_does_not_exist_is_refused_with_those_that_do() -> None:
    for transport in ("carrier pigeon", (), ("sse", "pigeon")):
        with pytest.raises(ValueError, match="allowed are sse, websocket, post"):
            Whimbrel("http://127.0.0.1:9", transport=transport)


def test_where_sse_is_held_back_websocket_is_used_and_what_comes_goes_on_where_it_was(nodes: list[Node]) -> None:
    async def run() -> None:
        async with proxy(nodes) as (way, url), Whimbrel(url) as whimbrel, Whimbrel(nodes[0].url) as publisher:
            streams = ("topic:held", "topic:held-too")
            await publisher.publish_batch([Draft(stream, n) for stream in streams for n in range(3)])
            listener = whimbrel.listen(*streams, after="earliest")
            got = await take(listener, 2)
            # A proxy that buffers what comes in one piece without an end.
            way.mode = "no-sse"
            way.cut()
            await publisher.publish_batch([Draft(stream, 3) for stream in streams])
            got += await take(listener, 6)
            assert way.upgrades, "it came over WebSocket"
            # The other way: a proxy that knows no WebSocket.
            way.mode = "no-websocket"
            way.cut()
            await publisher.publish_batch([Draft(stream, 4) for stream in streams])
            got += await take(listener, 2)
            for stream in streams:
                assert [event.data for event in got if event.stream == stream] == list(range(5))

    asyncio.run(run())


def test_a_cursor_of_one_transport_goes_on_over_another(nodes: list[Node]) -> None:
    async def run() -> None:
        streams = ("topic:across", "device:across")
        async with Whimbrel(nodes[0].url) as publisher:
            await publisher.publish_batch([Draft(stream, n) for n in range(4) for stream in streams])
        cursor = "earliest"
        got: dict[str, list[int]] = {stream: [] for stream in streams}
        for transport in ("websocket", "sse", "websocket", "post"):
            async with Whimbrel(nodes[1].url, transport=transport) as whimbrel:
                listener = whimbrel.listen(*streams, after=cursor)
                events: list[Event] = await take(listener, 3 if transport != "post" else 2)
                cursor = listener.cursor
                await listener.aclose()
                # The last one is still being handled, and comes again.
                for event in events[:-1]:
                    got[event.stream].append(event.data)
                if transport == "post":
                    got[events[-1].stream].append(events[-1].data)
        assert got == {stream: list(range(4)) for stream in streams}

    asyncio.run(run())


def test_streams_come_and_go_over_websocket_and_who_is_kicked_does_not_come_back(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url, transport="websocket") as whimbrel, Whimbrel(nodes[1].url) as publisher:
            listener = whimbrel.listen("device:socket", "topic:socket-left")
            waiting = asyncio.create_task(take(listener, 3))
            await until("it is open", lambda: listener.connection)
            await publisher.publish_batch([Draft("topic:socket", n) for n in range(3)])
            listener.subscribe("topic:socket", "last:2")
            listener.unsubscribe("topic:socket-left")
            await publisher.publish("topic:socket-left", "not wanted any more")
            await publisher.publish("device:socket", "mine")
            assert sorted(str(event.data) for event in await waiting) == ["1", "2", "mine"]
            waiting = asyncio.create_task(take(listener, 1))
            await publisher._service.call("DELETE", "/v1/devices/socket/connections")
            with pytest.raises(WhimbrelError) as kicked:
                await waiting
            assert kicked.value.code == "kicked"
            with pytest.raises(WhimbrelError) as refused:
                await take(whimbrel.listen("topic:no spaces"), 1)
            assert (refused.value.status, refused.value.code) == (400, "invalid-name")

    asyncio.run(run())


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_after_a_sleep_a_connection_that_died_meanwhile_is_replaced_at_once(
    nodes: list[Node], transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        publisher = Whimbrel(nodes[0].url)
        async with proxy(nodes) as (way, url), Whimbrel(url, transport=transport) as whimbrel, publisher:
            stream = f"topic:asleep-{transport}"
            # Without the wake it would be noticed after an hour.
            listener = whimbrel.listen(stream, silence=3600)
            waiting = asyncio.create_task(take(listener, 1))
            await until("it is open", lambda: listener.connection)
            connections = way.connections
            way.mode = "hang"
            monkeypatch.setattr(wake, "clock", lambda: time.time() + 8 * 3600)
            await until("another connection", lambda: way.connections > connections)
            await publisher.publish(stream, "while it slept")
            way.mode = "pass"
            way.cut()
            assert [event.data for event in await waiting] == ["while it slept"]

    asyncio.run(run())


def test_after_a_sleep_what_waits_to_come_back_does_so_at_once(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with proxy(nodes) as (way, url), Whimbrel(url) as whimbrel, Whimbrel(nodes[0].url) as publisher:
            listener = whimbrel.listen("topic:waiting")
            waiting = asyncio.create_task(take(listener, 1))
            await until("it is open", lambda: listener.connection)
            # The service says when to come back.
            monkeypatch.setattr("whimbrel_client.connection.backoff", lambda failures, hint: 3600.0)
            way.cut()
            await publisher.publish("topic:waiting", "while it waited")
            monkeypatch.setattr(wake, "clock", lambda: time.time() + 60)
            assert [event.data for event in await waiting] == ["while it waited"]

    asyncio.run(run())


def test_a_connection_counts_as_dead_after_silence_and_after_a_sleep_sooner() -> None:
    life = Life(100.0, 22.0, can_ask=False)
    assert life.deadline == 100 + OPENING and life.is_over(100 + OPENING)
    life.hear(200)
    assert not life.is_over(221.9) and life.is_over(222)
    # What was not read while others were busy is still there to be read.
    life.look(300)
    assert not life.is_over(300) and life.is_over(300 + GRACE)
    # Asleep for a second: a ping of the service may be some seconds away.
    life.hear(400)
    life.wake(401, unseen=1)
    assert not life.is_over(410.9) and life.is_over(411)
    # Asleep for an hour, which one clock shows and the other does not.
    for now, unseen in ((500, 3600), (4100, 0)):
        life.hear(500)
        life.wake(now, unseen)
        assert life.deadline == now + GRACE


def test_a_connection_that_can_be_asked_is_asked_before_it_counts_as_dead() -> None:
    life = Life(100.0, 22.0, can_ask=True)
    assert not life.pings(100 + OPENING) and life.is_over(100 + OPENING)
    life.hear(200)
    assert not life.pings(209.9) and life.pings(210)
    assert not life.pings(210) and not life.is_over(214.9) and life.is_over(210 + ANSWER)
    life.hear(211)
    life.wake(212, unseen=3600)
    assert life.pings(212) and life.is_over(212 + ANSWER)


def test_a_position_keeps_the_newest_of_each_stream_and_only_of_those_that_are_followed() -> None:
    position = Position("earliest")
    position.follow(["topic:a"], ["topic:a", "topic:b"], "topic:b/last:3")
    assert position.values() == ["topic:a/earliest", "topic:b/last:3"]
    position.settle({"topic:a": "5-1", "topic:b": "6-1"})
    position.pass_by("topic:b", "7-1")
    assert str(position) == "topic:a/5-1 topic:b/7-1"
    position.follow(["topic:a", "topic:b"], ["topic:b"], "")
    assert str(position) == "topic:b/7-1"
    position.move("c1.abc.stop")
    position.pass_by("topic:b", "8-1")
    assert str(position) == "c1.abc topic:b/8-1"
