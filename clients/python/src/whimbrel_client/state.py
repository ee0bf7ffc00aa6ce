"""A value that a snapshot begins and events continue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from .backoff import backoff
from .connection import log
from .listener import Event, Gap, Listener
from .service import Service, parameters_of
from .transport import Wish

V = TypeVar("V")


@dataclass(frozen=True)
class Snapshot(Generic[V]):
    """A value, and the cursor at which it has that value, where its source knows one from ``GET /v1/cursor``."""

    value: V
    cursor: str | None = None


class _Gap(Exception):
    """What the value was made of is not complete any more."""


class State(Generic[V]):
    """The value as it was loaded, and again after each event."""

    def __init__(
        self,
        service: Service,
        wish: Wish,
        load: Callable[[str], Awaitable[Snapshot[V]]],
        reduce: Callable[[V, Event], V],
    ) -> None:
        self._service = service
        self._wish = wish
        self._load = load
        self._reduce = reduce
        self._values = self._run()

    def __aiter__(self) -> State[V]:
        return self

    async def __anext__(self) -> V:
        return await anext(self._values)

    async def aclose(self) -> None:
        """Ends the connection."""
        await self._values.aclose()

    async def _run(self) -> AsyncGenerator[V, None]:
        while True:
            # The cursor first: what happens while the snapshot is loaded comes as an event too, and nothing is missed.
            params = parameters_of(self._wish.streams)
            cursor = (await self._service.call("GET", "/v1/cursor", params=params, patience=float("inf")))["cursor"]
            snapshot = await self._loaded(cursor)
            value = snapshot.value
            yield value
            try:
                async with aclosing(Listener(self._service, self._wish, snapshot.cursor or cursor, _anew)) as listener:
                    async for event in listener:
                        value = self._reduce(value, event)
                        yield value
            except _Gap:
                continue

    async def _loaded(self, cursor: str) -> Snapshot[V]:
        """Tries until it works: the source of the snapshot may be away for a moment."""
        failures = 0
        while True:
            try:
                return await self._load(cursor)
            except Exception:
                log.exception("the snapshot was not loaded")
                await asyncio.sleep(backoff(failures))
                failures += 1


def _anew(gap: Gap) -> None:
    raise _Gap
