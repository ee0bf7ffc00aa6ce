"""Presence and state: what a list or a snapshot says, joined with what comes after it."""

from __future__ import annotations

import asyncio

import pytest
from whimbrel_client import Change, Draft, Event, Gap, Member, Snapshot, Whimbrel
from world import Node, proxy, take, until


def names(members: list[Member]) -> set[str]:
    return {member.device for member in members}


def test_a_name_that_is_no_streams_is_refused_before_anything_is_sent() -> None:
    async def run() -> None:
        async with Whimbrel("http://127.0.0.1:9") as client:
            for name in ("tides", "topics:tides", "topic:"):
                with pytest.raises(ValueError, match="is not device:NAME or topic:NAME"):
                    client.listen(name)
                with pytest.raises(ValueError, match="is not device:NAME or topic:NAME"):
                    await client.publish(name, 1)

    asyncio.run(run())


def test_members_are_listed_and_who_joins_and_leaves_is_shown(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as one, Whimbrel(nodes[1].url) as other:
            changes: list[Change] = []
            watcher = one.listen("topic:room", "device:ann", members=True, on_change=changes.append)
            watching = asyncio.create_task(take(watcher, 1))
            await until("it is open", lambda: watcher.connection)
            presence = other.presence("topic:room", device="bob")
            shown: list[Member] = []

            async def follow() -> None:
                nonlocal shown
                async for shown in presence:
                    pass

            following = asyncio.create_task(follow())
            await until("both are there", lambda: names(shown) == {"ann", "bob"})
            await until("she is notified", lambda: [(change.joined, change.device) for change in changes] == [(True, "bob")])
            assert names(await one.members("topic:room")) == {"ann", "bob"}
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await watcher.aclose()
            await until("she left", lambda: names(shown) == {"bob"})
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await presence.aclose()

    asyncio.run(run())


def test_the_list_of_members_is_right_again_after_the_connection_was_cut(nodes: list[Node]) -> None:
    async def run() -> None:
        async with proxy(nodes) as (way, url), Whimbrel(url) as whimbrel, Whimbrel(nodes[1].url) as other:
            presence = whimbrel.presence("topic:cut")
            shown: list[list[Member]] = []

            async def follow() -> None:
                async for members in presence:
                    shown.append(members)

            following = asyncio.create_task(follow())
            await until("nobody is there", lambda: shown == [[]])
            way.mode = "html"
            way.cut()
            member = other.listen("topic:cut", "device:eve", members=True)
            joining = asyncio.create_task(take(member, 1))
            await until("she is there", lambda: member.connection)
            way.mode = "pass"
            await until("she is shown", lambda: names(shown[-1]) == {"eve"})
            for task in (following, joining):
                task.cancel()
            await asyncio.gather(following, joining, return_exceptions=True)

    asyncio.run(run())


def test_more_members_than_a_page_holds_are_listed(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            listeners = [whimbrel.listen("topic:crowd", f"device:crowd-{n}", members=True) for n in range(120)]
            tasks = [asyncio.create_task(take(listener, 1)) for listener in listeners]
            await until("all are open", lambda: all(listener.connection for listener in listeners))
            assert len(await whimbrel.members("topic:crowd")) == 120
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_a_snapshot_and_the_events_after_it_make_one_value_and_again_after_a_gap(nodes: list[Node]) -> None:
    async def run() -> None:
        stream = "topic:short-state"
        total = 0

        async def add(numbers: range) -> None:
            nonlocal total
            total += sum(numbers)
            await publisher.publish_batch([Draft(stream, n) for n in numbers])

        loads = 0

        async def load(cursor: str) -> Snapshot[tuple[int, str]]:
            nonlocal loads
            loads += 1
            if loads == 2:
                raise OSError("the backend is away")
            value = total
            answer = await publisher._service.call("GET", "/v1/cursor", params=[("topic", stream[6:])])
            # It is old by the time it arrives.
            await add(range(1, 3))
            return Snapshot((value, "loaded"), answer["cursor"])

        def reduce(value: tuple[int, str], event: Event) -> tuple[int, str]:
            return value[0] + event.data, "counted"

        async with proxy(nodes[:1]) as (way, url), Whimbrel(url) as whimbrel, Whimbrel(nodes[1].url) as publisher:
            await add(range(10))
            state = whimbrel.state(stream, load=load, reduce=reduce)
            shown: list[int] = []

            async def follow() -> None:
                async for value, _ in state:
                    shown.append(value)

            following = asyncio.create_task(follow())
            await until("what came meanwhile", lambda: shown and shown[-1] == total == 48)
            way.mode = "html"
            way.cut()
            # This node has nothing of it in its memory.
            way.nodes = nodes[1:]
            await add(range(300))
            way.mode = "pass"
            await until("the snapshot anew, and what came after it", lambda: loads == 3 and shown[-1] == total)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(run())


def test_from_where_a_gap_was_recovered_events_go_on(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel, Whimbrel(nodes[1].url) as other:
            stream = "topic:short-recovered"
            first = await whimbrel.publish(stream, 0)
            await whimbrel.publish_batch([Draft(stream, n) for n in range(300)])
            newest = (await whimbrel.publish(stream, 300)).id
            gaps: list[Gap] = []

            async def recover(gap: Gap) -> str:
                gaps.append(gap)
                return str(newest)

            listener = other.listen(stream, after=str(first.id), on_gap=recover)
            waiting = asyncio.create_task(take(listener, 1))
            await until("the gap", lambda: gaps)
            await whimbrel.publish(stream, "next")
            assert [event.data for event in await waiting] == ["next"]

    asyncio.run(run())


def test_more_streams_than_fit_into_an_address_are_followed(nodes: list[Node]) -> None:
    async def run() -> None:
        async with proxy(nodes) as (way, url), Whimbrel(url) as whimbrel, Whimbrel(nodes[1].url) as publisher:
            streams = [f"topic:many-{n}:{'long' * 40}" for n in range(60)]
            listener = whimbrel.listen(*streams)
            got: list[Event] = []

            async def listen() -> None:
                async for event in listener:
                    got.append(event)

            listening = asyncio.create_task(listen())
            await until("it is open", lambda: listener.connection)
            for n in range(2):
                await publisher.publish_batch([Draft(stream, n) for stream in streams])
                await until("all of them", lambda: len(got) == len(streams) * (n + 1))
                # Resumed on the other node.
                way.nodes = nodes[::-1]
                way.cut()
            for stream in streams:
                assert [event.data for event in got if event.stream == stream] == [0, 1]
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    asyncio.run(run())


def test_streams_come_and_go_while_it_runs_with_as_much_of_their_history_as_is_asked_for(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel, Whimbrel(nodes[1].url) as publisher:
            first, second = "topic:first", "topic:second"
            await publisher.publish_batch([Draft(second, n) for n in range(5)])
            listener = whimbrel.listen(first)
            got: dict[str, list[int]] = {first: [], second: []}

            async def listen() -> None:
                async for event in listener:
                    got[event.stream].append(event.data)

            listening = asyncio.create_task(listen())
            await until("it is open", lambda: listener.connection)
            await publisher.publish(first, 0)
            await until("the first", lambda: got[first] == [0])
            listener.subscribe(second, "last:3")
            await until("its history", lambda: got[second] == [2, 3, 4])
            await publisher.publish(second, 5)
            await publisher.publish(first, 1)
            await until("both", lambda: got == {first: [0, 1], second: [2, 3, 4, 5]})
            listener.unsubscribe(first)
            connection = listener.connection
            await until("another connection", lambda: listener.connection != connection)
            await publisher.publish(first, 2)
            await publisher.publish(second, 6)
            await until("the second", lambda: got[second][-1] == 6)
            assert got[first] == [0, 1]
            with pytest.raises(ValueError, match="only"):
                listener.unsubscribe(second)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    asyncio.run(run())


def test_a_connection_may_be_left_out_of_what_it_publishes(nodes: list[Node]) -> None:
    async def run() -> None:
        async with Whimbrel(nodes[0].url) as whimbrel:
            listener = whimbrel.listen("topic:echo")
            waiting = asyncio.create_task(take(listener, 1))
            await until("it is open", lambda: listener.connection)
            await whimbrel.publish("topic:echo", "mine", exclude=listener.connection)
            await whimbrel.publish("topic:echo", "yours")
            assert [event.data for event in await waiting] == ["yours"]

    asyncio.run(run())
