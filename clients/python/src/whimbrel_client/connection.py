"""Frames of the service, over one connection after the other: each goes on where the one before ended."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx

from .backoff import backoff
from .errors import WhimbrelError, error_of
from .service import Service, parameters_of, parts_of
from .sse import Block, blocks

#: After these, coming back would be against what was decided.
FINAL = ("kicked", "replaced", "revoked")

#: A longer query goes into a body, as some proxies refuse it: the usual ones at 8 KiB with all headers.
LONGEST = 4000

log = logging.getLogger("whimbrel_client")

OnRefused = Callable[[str, WhimbrelError], None]


@dataclass(frozen=True)
class Wish:
    """What is to be followed."""

    streams: tuple[str, ...]
    types: tuple[str, ...] = ()
    members: bool = False
    #: Seconds without a byte after which a connection counts as dead.
    silence: float = 60.0

    def __post_init__(self) -> None:
        for stream in self.streams:
            parts_of(stream)


@dataclass(frozen=True)
class Frame:
    """An ``event``, or a notice by its name."""

    op: str
    content: dict[str, Any]


class Connection:
    def __init__(self, service: Service, wish: Wish, after: str, on_refused: OnRefused | None = None) -> None:
        #: Where it goes on: a value of `after`, or several with spaces between them, each overriding those before it.
        self.position = after
        #: The service's name for it.
        self.id: str | None = None
        self._service = service
        self._wish = wish
        self._on_refused = on_refused
        #: Streams that the service gave at least once.
        self._granted: tuple[str, ...] = ()
        #: It is to be another connection.
        self._moved = asyncio.Event()

    @property
    def streams(self) -> tuple[str, ...]:
        """What it follows."""
        return self._wish.streams

    def move(self, position: str) -> None:
        """Goes on from another position."""
        self.position = position
        self._moved.set()

    def follow(self, streams: tuple[str, ...], position: str = "") -> None:
        """Follows other streams, with positions of those that have none yet."""
        if len(self.streams) == 1 and self.position and not self.position.startswith("c1.") and "/" not in self.position:
            # An id, or a word, is of the one stream.
            self.position = f"{self.streams[0]}/{self.position}"
        self._wish = replace(self._wish, streams=streams)
        self.move(f"{self.position} {position}".strip())

    def frames(self) -> AsyncGenerator[Frame, None]:
        """They end only with a :class:`WhimbrelError`; :meth:`close` them."""
        frames = self._run()
        self._service.open.add(frames)
        return frames

    async def close(self, frames: AsyncGenerator[Frame, None]) -> None:
        self._service.open.discard(frames)
        # The client may be closing them at this moment.
        with suppress(RuntimeError):
            await frames.aclose()

    async def _run(self) -> AsyncGenerator[Frame, None]:
        failures = 0
        refused = fresh = False
        while True:
            hint: float | None = None
            self._moved.clear()
            try:
                async with self._open(fresh) as response:
                    fresh = False
                    if response.status_code != 200 or not _is_stream(response):
                        raise await error_of(response)
                    async with aclosing(self._until_moved(response.aiter_text())) as read:
                        async for block in blocks(read):
                            # What was read already comes anew: it would move the position that was just given.
                            if self._moved.is_set():
                                break
                            if block.retry is not None:
                                hint = block.retry / 1000
                                continue
                            frame = _frame(block)
                            if frame.op == "close":
                                hint, fresh = _closed(frame)
                                break
                            failures, refused = 0, False
                            await self._take(frame, block)
                            yield frame
            except httpx.TransportError:
                pass
            except WhimbrelError as error:
                if error.status == 401 and not refused:
                    refused = fresh = True
                    continue
                if error.status == 403 and self._leave_refused(error):
                    continue
                if error.status == 401 or error.is_final:
                    raise
                hint = error.retry
            if not self._moved.is_set():
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), backoff(failures, hint))
                failures += 1

    def _leave_refused(self, error: WhimbrelError) -> bool:
        """What was open before goes on without the streams that are refused now, if there are others."""
        named = [stream for stream in self.streams if stream in error.detail.split()]
        refused = named or [stream for stream in self.streams if stream not in self._granted]
        rest = tuple(stream for stream in self.streams if stream not in refused)
        if not self._granted or not refused or not rest:
            return False
        self.follow(rest)
        for stream in refused:
            if self._on_refused:
                self._on_refused(stream, error)
            else:
                log.warning("%s is not followed: %s", stream, error)
        return True

    async def _until_moved(self, read: AsyncIterator[str]) -> AsyncGenerator[str, None]:
        """What is read, until another connection is wanted."""
        moved = asyncio.ensure_future(self._moved.wait())
        try:
            while not self._moved.is_set():
                following = asyncio.ensure_future(anext(read, None))
                try:
                    await asyncio.wait((following, moved), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not following.done():
                        following.cancel()
                        await asyncio.wait((following,))
                text = None if self._moved.is_set() else following.result()
                if text is None:
                    return
                yield text
        finally:
            moved.cancel()

    async def _take(self, frame: Frame, block: Block) -> None:
        if block.id:
            self.position = block.id.removesuffix(".stop")
        if frame.op == "position":
            self.id = frame.content.get("connection", self.id)
            self._granted = self.streams
        if frame.op == "expiring":
            await self._renew()

    @asynccontextmanager
    async def _open(self, fresh: bool) -> AsyncIterator[httpx.Response]:
        service, wish = self._service, self._wish
        headers = {"accept": "text/event-stream", **await service.headers(fresh)}
        # The service pings, so silence means that the connection died.
        timeout = httpx.Timeout(10.0, read=wish.silence)
        url = httpx.URL(service.url + "/v1/sse", params=self._parameters())
        method, content = "GET", None
        if len(url.query) > LONGEST:
            url, method, content = url.copy_with(query=None), "POST", json.dumps(self._body()).encode()
            headers["content-type"] = "application/json"
        async with service.http.stream(method, url, content=content, headers=headers, timeout=timeout) as response:
            yield response

    def _parameters(self) -> list[tuple[str, Any]]:
        wish = self._wish
        parameters = [*parameters_of(wish.streams), ("envelope", "1")]
        parameters += [("after", position) for position in self.position.split()]
        if wish.types:
            parameters.append(("types", ",".join(wish.types)))
        if wish.members:
            parameters.append(("members", "1"))
        return parameters

    def _body(self) -> dict[str, Any]:
        wish = self._wish
        given = {"streams": wish.streams, "after": self.position.split(), "types": wish.types, "members": wish.members}
        return {**given, "envelope": True}

    async def _renew(self) -> None:
        """In place; where that fails, the connection ends in time, and the next one has a new token."""
        try:
            await self._service.headers(fresh=True)
            await self._service.call("POST", f"/v1/connections/{self.id}/renew", patience=0)
        except WhimbrelError as error:
            log.warning("the token was not renewed: %s", error)


def _frame(block: Block) -> Frame:
    is_notice = block.type.startswith("whimbrel:") and block.type != "whimbrel:abandoned"
    op = block.type.removeprefix("whimbrel:") if is_notice else "event"
    return Frame(op, json.loads("\n".join(block.data)))


def _closed(frame: Frame) -> tuple[float, bool]:
    reason = frame.content["reason"]
    if reason in FINAL:
        raise WhimbrelError(reason)
    return frame.content["retry"] / 1000, reason == "expired"


def _is_stream(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.startswith("text/event-stream")
