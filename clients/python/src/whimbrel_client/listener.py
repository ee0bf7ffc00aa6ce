"""Listening: an iterator that comes back by itself, and goes on where it was."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .acks import Acknowledger
from .connection import Connection, OnRefused
from .position import is_after
from .presence import Change
from .service import Service
from .transport import Frame, Wish


@dataclass(frozen=True)
class Event:
    """An event as it was published. One that is not stored has neither id nor time."""

    stream: str
    type: str
    data: Any
    id: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class Gap:
    """Events after ``after`` and before ``next`` can't be delivered any more."""

    stream: str
    after: str
    next: str
    reason: str


#: May give a cursor, from where events go on.
OnGap = Callable[[Gap], "Awaitable[str | None] | str | None"]
OnChange = Callable[[Change], "Awaitable[None] | None"]


class Listener:
    """The events of some streams, in order, each once. It ends only by being closed, or with a :class:`WhimbrelError`."""

    def __init__(
        self,
        service: Service,
        wish: Wish,
        after: str,
        on_gap: OnGap | None = None,
        on_change: OnChange | None = None,
        on_refused: OnRefused | None = None,
        acks: Acknowledger | None = None,
    ) -> None:
        #: Up to where everything is handled: a value for ``after``. It moves when the next event is asked for.
        self.cursor = after
        self._connection = Connection(service, wish, after, on_refused)
        self._on_gap = on_gap
        self._on_change = on_change
        self._newest: dict[str, str] = {}
        self._acks = acks
        self._handling: Event | None = None
        self._events = self._run()

    @property
    def connection(self) -> str | None:
        """The connection's id, for ``exclude``; none before it was open."""
        return self._connection.id

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        self.cursor = self._connection.position
        handled, self._handling = self._handling, None
        if self._acks and handled and handled.stream.startswith("device:"):
            self._acks.soon(handled.stream, handled.id)
        self._handling = await anext(self._events)
        return self._handling

    def subscribe(self, stream: str, after: str | None = None) -> None:
        """Follows one more stream, from now on or from ``after``."""
        connection = self._connection
        if stream not in connection.streams:
            connection.follow((*connection.streams, stream), f"{stream}/{after}" if after else "")

    def unsubscribe(self, stream: str) -> None:
        """Follows a stream no more. The last one can't be left: close the listener."""
        rest = tuple(name for name in self._connection.streams if name != stream)
        if not rest:
            raise ValueError(f"{stream} is the only stream")
        self._newest.pop(stream, None)
        self._connection.follow(rest)

    async def aclose(self) -> None:
        """Ends the connection."""
        await self._events.aclose()
        if self._acks:
            await self._acks.drain()

    async def _run(self) -> AsyncGenerator[Event, None]:
        frames = self._connection.frames()
        try:
            async for frame in frames:
                if frame.op == "gap":
                    await self._gap(Gap(**_fields(frame, "stream", "after", "next", "reason")))
                elif frame.op in ("joined", "left"):
                    await _awaited(self._on_change, Change(frame.op == "joined", **_fields(frame, "stream", "device", "info")))
                elif frame.op == "event":
                    event = Event(**_fields(frame, "stream", "type", "data", "id", "time"))
                    if event.stream in self._connection.streams and self._is_new(event):
                        yield event
        finally:
            await self._connection.close(frames)

    def _is_new(self, event: Event) -> bool:
        """What comes again is dropped."""
        if not event.id:
            return True
        is_new = is_after(event.id, self._newest.get(event.stream))
        if is_new:
            self._newest[event.stream] = event.id
        return is_new

    async def _gap(self, gap: Gap) -> None:
        self._newest.pop(gap.stream, None)
        cursor = await _awaited(self._on_gap, gap)
        if cursor:
            self._newest.clear()
            self._connection.move(cursor)


async def _awaited(call: Callable[[Any], Any] | None, value: Any) -> Any:
    answer = call(value) if call else None
    return await answer if inspect.isawaitable(answer) else answer


def _fields(frame: Frame, *names: str) -> dict[str, Any]:
    return {name: frame.content.get(name) for name in names}
