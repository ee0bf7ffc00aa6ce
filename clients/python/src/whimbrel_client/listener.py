"""Listening: an iterator that comes back by itself, and goes on where it was."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from .backoff import backoff
from .errors import WhimbrelError, error_of
from .service import Service
from .sse import Block, blocks

#: After these, coming back would be against what was decided.
FINAL = ("kicked", "replaced", "revoked")


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


log = logging.getLogger("whimbrel_client")

OnGap = Callable[[Gap], "Awaitable[None] | None"]


def _order(id: str) -> tuple[int, int]:
    ms, _, seq = id.partition("-")
    return int(ms), int(seq)


class Listener:
    """The events of some streams, in order, each once. It ends only by being closed, or with a :class:`WhimbrelError`."""

    def __init__(
        self,
        service: Service,
        streams: tuple[str, ...],
        after: str,
        types: tuple[str, ...],
        silence: float,
        on_gap: OnGap | None,
    ) -> None:
        #: Up to where everything is handled: a value for ``after``. It moves when the next event is asked for.
        self.cursor = after
        self._received = after
        self._service = service
        self._streams = streams
        self._types = types
        self._silence = silence
        self._on_gap = on_gap
        self._newest: dict[str, str] = {}
        self._connection: str | None = None
        self._events = self._run()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        self.cursor = self._received
        return await anext(self._events)

    async def aclose(self) -> None:
        """Ends the connection."""
        await self._events.aclose()

    async def _run(self) -> AsyncGenerator[Event, None]:
        failures = 0
        refused = fresh = False
        while True:
            hint: float | None = None
            try:
                async with self._open(fresh) as response:
                    fresh = False
                    if response.status_code != 200 or not _is_stream(response):
                        raise await error_of(response)
                    async for block in blocks(response.aiter_text()):
                        if block.retry is not None:
                            hint = block.retry / 1000
                            continue
                        if block.type == "whimbrel:close":
                            hint, fresh = self._closed(block)
                            break
                        failures, refused = 0, False
                        event = await self._take(block)
                        if event:
                            yield event
            except httpx.TransportError:
                pass
            except WhimbrelError as error:
                if error.status == 401 and not refused:
                    refused = fresh = True
                    continue
                if error.status == 401 or error.is_final:
                    raise
                hint = error.retry
            await asyncio.sleep(backoff(failures, hint))
            failures += 1

    @asynccontextmanager
    async def _open(self, fresh: bool) -> AsyncIterator[httpx.Response]:
        service = self._service
        headers = {"accept": "text/event-stream", **await service.headers(fresh)}
        # The service pings, so silence means that the connection died.
        timeout = httpx.Timeout(10.0, read=self._silence)
        url = service.url + "/v1/sse"
        async with service.http.stream("GET", url, params=self._parameters(), headers=headers, timeout=timeout) as response:
            yield response

    def _closed(self, block: Block) -> tuple[float, bool]:
        notice = json.loads("\n".join(block.data))
        if notice["reason"] in FINAL:
            raise WhimbrelError(notice["reason"])
        return notice["retry"] / 1000, notice["reason"] == "expired"

    async def _take(self, block: Block) -> Event | None:
        content = json.loads("\n".join(block.data))
        event = None
        if block.type == "whimbrel:gap":
            await self._gap(Gap(**{name: content[name] for name in ("stream", "after", "next", "reason")}))
        elif block.type == "whimbrel:position":
            self._connection = content.get("connection", self._connection)
        elif block.type == "whimbrel:expiring":
            await self._renew()
        elif not block.type.startswith("whimbrel:"):
            event = Event(**{name: content.get(name) for name in ("stream", "type", "data", "id", "time")})
        if block.id:
            self._received = block.id.removesuffix(".stop")
        if event and event.id:
            # What comes again is dropped.
            newest = self._newest.get(event.stream)
            if newest and _order(event.id) <= _order(newest):
                return None
            self._newest[event.stream] = event.id
        return event

    async def _gap(self, gap: Gap) -> None:
        self._newest.pop(gap.stream, None)
        if self._on_gap:
            done = self._on_gap(gap)
            if inspect.isawaitable(done):
                await done

    async def _renew(self) -> None:
        """In place; where that fails, the connection ends in time, and the next one has a new token."""
        try:
            await self._service.headers(fresh=True)
            await self._service.call("POST", f"/v1/connections/{self._connection}/renew", patience=0)
        except WhimbrelError as error:
            log.warning("the token was not renewed: %s", error)

    def _parameters(self) -> list[tuple[str, str | int | float | bool | None]]:
        parameters: list[tuple[str, str | int | float | bool | None]] = [("after", self._received), ("envelope", "1")]
        for stream in self._streams:
            kind, _, name = stream.partition(":")
            parameters.append((kind, name))
        if self._types:
            parameters.append(("types", ",".join(self._types)))
        return parameters


def _is_stream(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.startswith("text/event-stream")
