"""Tokens: renewed in place, asked for once more, refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import httpx
import pytest
from whimbrel_client import Whimbrel, WhimbrelError
from whimbrel_client.credentials import Credentials
from world import Node, free_port, redis_server, take, until

SECRET = "a secret that is long enough for a test of tokens"
OTHER = "another secret, which is long enough as well"


def token(device: str, seconds: float, secret: str = SECRET, subscribe: str = "topic:open:*") -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    now = int(time.time())
    may = {"subscribe": [subscribe], "publish": [f"device:{device}", "topic:open:*"]}
    claims = {"sub": device, "iat": now, "exp": now + seconds, "whimbrel": may}
    signed = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    return signed + "." + part(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that lets in nobody without a token."""
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        node = Node(redis, free_port(), WHIMBREL_JWT_SECRET=SECRET)
        yield node
        node.kill()


async def expired(url: str, device: str, token: str) -> None:
    """Returns when a connection that keeps this token is ended for it."""
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.get(f"{url}/v1/sse?device={device}", headers={"authorization": f"Bearer {token}"})
    assert '"reason":"expired"' in answer.text


async def outlived(url: str, transport: str, seconds: int) -> bool:
    """Whether a client on one connection outlived its first token; false also where it had too little time for that."""
    # The service says at once that less than a minute is left.
    device = f"renewed-{transport}-{seconds}"
    tokens: list[str] = []

    async def get() -> str:
        tokens.append(token(device, 3600 if tokens else seconds))
        return tokens[-1]

    async with Whimbrel(url, get, transport=transport) as whimbrel:
        listener = whimbrel.listen(f"device:{device}")
        waiting = asyncio.create_task(take(listener, 1))
        await until("a second token", lambda: len(tokens) > 1)
        connection = listener.connection
        in_time = time.time() < json.loads(base64.urlsafe_b64decode(tokens[0].split(".")[1] + "=="))["exp"] - 1
        await expired(url, device, tokens[0])
        await whimbrel.publish(f"device:{device}", "still")
        assert [event.data for event in await waiting] == ["still"]
        return in_time and (listener.connection, len(tokens)) == (connection, 2)


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_token_is_renewed_on_the_connection_that_is_open(closed: Node, transport: str) -> None:
    # A slow machine needs more time.
    assert any(asyncio.run(outlived(closed.url, transport, seconds)) for seconds in (3, 12, 40))


def test_a_token_that_is_refused_is_asked_for_once_more(closed: Node) -> None:
    async def run() -> None:
        asked = 0

        def get() -> str:
            nonlocal asked
            asked += 1
            return token("once", 3600, SECRET if asked > 1 else OTHER)

        async with Whimbrel(closed.url, get) as whimbrel:
            await whimbrel.publish("device:once", 1)
            assert asked == 2
            assert [event.data for event in await take(whimbrel.listen("device:once", after="earliest"), 1)] == [1]
            assert asked == 2

        def wrong() -> str:
            nonlocal asked
            asked += 1
            return token("once", 3600, OTHER)

        async with Whimbrel(closed.url, wrong) as whimbrel:
            with pytest.raises(WhimbrelError) as error:
                await take(whimbrel.listen("device:once"), 1)
            assert (error.value.status, asked) == (401, 4)

    asyncio.run(run())


def test_a_stream_that_the_token_does_not_name_is_refused_with_its_name(closed: Node) -> None:
    async def run() -> None:
        async with Whimbrel(closed.url, lambda: token("some", 3600)) as whimbrel:
            with pytest.raises(WhimbrelError, match="topic:closed") as error:
                await take(whimbrel.listen("device:some", "topic:closed"), 1)
            assert (error.value.status, error.value.code) == (403, "forbidden")

    asyncio.run(run())


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_stream_that_is_refused_later_is_left_and_the_others_go_on(closed: Node, transport: str) -> None:
    async def run() -> None:
        async with Whimbrel(closed.url, lambda: token("later", 3600), transport=transport) as whimbrel:
            refused: list[tuple[str, int | None]] = []
            listener = whimbrel.listen("device:later", on_refused=lambda stream, error: refused.append((stream, error.status)))
            waiting = asyncio.create_task(take(listener, 2))
            await until("it is open", lambda: listener.connection)
            connection = listener.connection
            listener.subscribe("topic:closed")
            listener.subscribe("topic:open:later")
            await until("the refusal", lambda: refused == [("topic:closed", 403)])
            await until("it is open without it", lambda: listener.connection != connection)
            await whimbrel.publish("device:later", 1)
            await whimbrel.publish("topic:open:later", 2)
            assert [event.data for event in await waiting] == [1, 2]

    asyncio.run(run())


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_stream_that_a_new_token_does_not_name_any_more_is_left(closed: Node, transport: str) -> None:
    async def run() -> None:
        asked = 0

        def get() -> str:
            nonlocal asked
            asked += 1
            # The service says at once that less than a minute is left of the first.
            return token("fewer", 40) if asked == 1 else token("fewer", 3600, subscribe="topic:none")

        async with Whimbrel(closed.url, get, transport=transport) as whimbrel:
            refused: list[str] = []
            listener = whimbrel.listen("device:fewer", "topic:open:fewer", on_refused=lambda stream, _: refused.append(stream))
            waiting = asyncio.create_task(take(listener, 1))
            await until("the refusal", lambda: refused == ["topic:open:fewer"])
            await whimbrel.publish("topic:open:fewer", "not mine")
            await whimbrel.publish("device:fewer", "mine")
            assert [event.data for event in await waiting] == ["mine"]

    asyncio.run(run())


def test_a_token_that_can_not_be_got_is_tried_for_again(closed: Node) -> None:
    async def run() -> None:
        asked = 0

        async def get() -> str:
            nonlocal asked
            asked += 1
            if asked < 3:
                raise OSError("the backend is away")
            return token("away", 3600)

        async with Whimbrel(closed.url, get) as whimbrel:
            await whimbrel.publish("device:away", 1)
            assert asked == 3

    asyncio.run(run())


def test_a_token_is_asked_for_once_at_a_time_and_before_it_expires() -> None:
    async def run() -> None:
        asked: list[float] = []

        async def get() -> str:
            asked.append(20 if len(asked) % 2 == 0 else 3600)
            await asyncio.sleep(0)
            return token("early", asked[-1])

        credentials = Credentials(get)
        for expected in (1, 2, 2):
            await asyncio.gather(*(credentials.get() for _ in range(5)))
            assert len(asked) == expected
        await asyncio.gather(*(credentials.get(fresh=True) for _ in range(5)))
        assert len(asked) == 3

    asyncio.run(run())
