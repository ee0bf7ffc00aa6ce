"""What an application holds in its hands."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx

from .acks import Acknowledger
from .connection import OnRefused
from .credentials import Token
from .errors import WhimbrelError
from .listener import Event, Listener, OnChange, OnGap
from .presence import Member, Presence, members_of
from .service import Service, parts_of, path_of
from .state import Snapshot, State, V
from .transport import ALL, Wish, ways_of

#: The service remembers idempotency keys for five minutes. A repeat has to be there before.
PATIENCE = 240.0

#: Events that one request of a batch carries.
BATCH = 500

#: Seconds without a byte after which a connection counts as dead: more than two of the service's ping intervals.
SILENCE = 60.0


@dataclass(frozen=True)
class Published:
    """What became of an event. One that is not stored has no id."""

    stream: str
    id: str | None = None
    nodes: int = 0
    duplicate: bool = False


@dataclass(frozen=True)
class Draft:
    """An event of a batch."""

    stream: str
    data: Any
    type: str | None = None
    ttl: int | None = None
    collapse: str | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def _entry(self) -> dict[str, Any]:
        kind, name = parts_of(self.stream)
        entry = {kind: name, "data": self.data, "type": self.type, "ttl": self.ttl, "collapse": self.collapse}
        return {**{name: value for name, value in entry.items() if value is not None}, "data": self.data, "key": self.key}


class Whimbrel:
    """A client of the service at ``url``. Use it with ``async with``, or call :meth:`aclose`.

    ``token`` is a device's token or a producer's key, or a function that gets one; it is asked for anew when the
    service says that the old one expires or does not count. ``http`` may be a client of httpx with settings of its own.

    ``transport`` is how it listens: ``sse``, ``websocket`` (which needs ``whimbrel-client[websocket]``), ``post`` (SSE
    asked for by POST, for proxies that hold back what answers a GET), or several to fall over between. ``websocket``
    are options of ``websockets.connect``, such as ``ssl``.
    """

    def __init__(
        self,
        url: str,
        token: Token = None,
        http: httpx.AsyncClient | None = None,
        transport: str | Sequence[str] = ALL,
        websocket: dict[str, Any] | None = None,
    ) -> None:
        self._own = http is None
        self._http = http or httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
        self._service = Service(url, token, self._http, ways_of(transport), websocket or {})
        self._locks: dict[str, asyncio.Lock] = {}
        self._acks = Acknowledger(self._service)

    async def __aenter__(self) -> Whimbrel:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the listeners that nobody waits for, and the connections, if they are this client's own."""
        for frames in list(self._service.open):
            # Somebody waits for it, or closes it at this moment.
            with suppress(RuntimeError):
                await frames.aclose()
        await self._acks.aclose()
        if self._own:
            await self._http.aclose()

    async def publish(
        self,
        stream: str,
        data: Any,
        *,
        type: str | None = None,
        ttl: int | None = None,
        collapse: str | None = None,
        durable: str | None = None,
        ephemeral: bool = False,
        key: str | None = None,
        exclude: str | None = None,
    ) -> Published:
        """Publishes; repeated under its idempotency key until it is answered, and in order within a stream.

        An ephemeral event has no key and is sent once. ``exclude`` is a :attr:`Listener.connection` that does not get it.
        """
        given = {"type": type, "ttl": ttl, "collapse": collapse, "durable": durable, "exclude": exclude}
        params = [(name, str(value)) for name, value in given.items() if value is not None]
        params += [("ephemeral", "true")] if ephemeral else []
        headers = {"content-type": "application/json"}
        if not ephemeral:
            headers["idempotency-key"] = key or uuid.uuid4().hex
        async with self._locks.setdefault(stream, asyncio.Lock()):
            answer = await self._service.call(
                "POST",
                path_of(stream) + "/events",
                content=json.dumps(data, ensure_ascii=False).encode(),
                params=params,
                headers=headers,
                patience=0.0 if ephemeral else PATIENCE,
            )
        return _published(answer)

    async def publish_batch(self, drafts: Sequence[Draft]) -> list[Published | WhimbrelError]:
        """Publishes many at once; what became of each, in order. A bad one does not fail the others."""
        outcomes: list[Published | WhimbrelError] = []
        for first in range(0, len(drafts), BATCH):
            entries = [draft._entry() for draft in drafts[first : first + BATCH]]
            content = json.dumps(entries, ensure_ascii=False).encode()
            headers = {"content-type": "application/json"}
            answer = await self._service.call("POST", "/v1/events", content=content, headers=headers, patience=PATIENCE)
            outcomes += [_outcome(result) for result in answer["results"]]
        return outcomes

    def listen(
        self,
        *streams: str,
        after: str = "now",
        types: Sequence[str] = (),
        members: bool = False,
        ack: bool = False,
        silence: float = SILENCE,
        on_gap: OnGap | None = None,
        on_change: OnChange | None = None,
        on_refused: OnRefused | None = None,
    ) -> Listener:
        """The events of streams, as an asynchronous iterator that resumes by itself.

        ``after``: ``now``, ``earliest``, ``last:N``, ``ack``, an id, or a :attr:`Listener.cursor` that was kept.
        ``members``: the device is a member of the topics, and ``on_change`` is called when others join and leave.
        ``ack``: a device's event is acknowledged by itself once it is handled: when the next one is asked for.
        ``silence``: seconds without a byte after which a connection counts as dead; more than two of the service's
        ping intervals. ``on_gap`` is called, and awaited, before the event that follows a gap; if it gives a cursor,
        events go on from there. ``on_refused`` is called with a stream that was refused while others were followed
        already, and the error; without it, that is logged.
        """
        wish = Wish(streams, tuple(types), members, silence)
        return Listener(self._service, wish, after, on_gap, on_change, on_refused, self._acks if ack else None)

    def state(
        self,
        *streams: str,
        load: Callable[[str], Awaitable[Snapshot[V]]],
        reduce: Callable[[V, Event], V],
        types: Sequence[str] = (),
        silence: float = SILENCE,
    ) -> State[V]:
        """A value made of a snapshot and the events after it, as an asynchronous iterator of all its states.

        ``load`` is given the cursor of a moment before it was called; if what it loads has a cursor of its own, that is
        where the events begin. It is tried again where it fails, and called anew after a gap.
        """
        return State(self._service, Wish(streams, tuple(types), silence=silence), load, reduce)

    def presence(self, topic: str, *, device: str | None = None, silence: float = SILENCE) -> Presence:
        """The members of a topic, at first and after each change, as an asynchronous iterator of lists.

        A device, by its token or as ``device``, is a member itself meanwhile.
        """
        return Presence(self._service, topic, device, silence)

    async def members(self, topic: str) -> list[Member]:
        """The members of a topic now."""
        return await members_of(self._service, topic)

    async def ack(self, event: Event) -> None:
        """Acknowledges an event of a device, and all before it."""
        await self._acks.ack(event.stream, event.id)


def _published(answer: dict[str, Any]) -> Published:
    return Published(answer["stream"], answer.get("id"), answer.get("nodes", 0), answer.get("duplicate", False))


def _outcome(result: dict[str, Any]) -> Published | WhimbrelError:
    if "error" in result:
        return WhimbrelError(result["error"], result.get("detail", ""), 400)
    return _published(result)
