"""Frames of the service, over one connection after the other: each goes on where the one before ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from time import monotonic
from typing import Any

from .backoff import backoff
from .errors import WhimbrelError
from .life import Life
from .position import Position
from .service import Service
from .transport import Broken, Frame, Link, Turns, Wish, final_of
from .transport.sse import Sse

log = logging.getLogger("whimbrel_client")

OnRefused = Callable[[str, WhimbrelError], None]


class Connection:
    def __init__(self, service: Service, wish: Wish, after: str, on_refused: OnRefused | None = None) -> None:
        #: The service's name for it.
        self.id: str | None = None
        self._position = Position(after)
        self._service = service
        self._wish = wish
        self._on_refused = on_refused
        self._turns = Turns(service.ways)
        self._link: Link | None = None
        #: Streams that the service gave at least once.
        self._granted: tuple[str, ...] = ()
        #: It is to be another connection.
        self._moved = False
        #: It is to be looked at after a sleep: how much of it no clock showed.
        self._slept: float | None = None
        #: One of both became true.
        self._nudge = asyncio.Event()

    @property
    def streams(self) -> tuple[str, ...]:
        """What it follows."""
        return self._wish.streams

    @property
    def position(self) -> str:
        """Where it goes on: a value of `after`, or several with spaces between them."""
        return str(self._position)

    def move(self, position: str) -> None:
        """Goes on from another position."""
        self._position.move(position)
        self._reopen()

    def follow(self, streams: tuple[str, ...], position: str = "") -> None:
        """Follows other streams, with positions of those that have none yet."""
        self._position.follow(self.streams, streams, position)
        self._wish = replace(self._wish, streams=streams)
        self._reopen()

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

    def _reopen(self) -> None:
        self._moved = True
        self._nudge.set()

    def _wake(self, unseen: float) -> None:
        self._slept = unseen
        self._nudge.set()

    async def _run(self) -> AsyncGenerator[Frame, None]:
        failures = 0
        refused = fresh = False
        with self._service.wake.calls(self._wake):
            while True:
                hint: float | None = None
                was_heard = self._moved = False
                try:
                    headers = await self._service.headers(fresh)
                    fresh = False
                    async with aclosing(self._lived(self._opened(headers))) as frames:
                        async for frame in frames:
                            # What was read already comes anew: it would move the position that was just given.
                            if self._moved:
                                break
                            if frame.op == "retry":
                                hint = frame.content["retry"] / 1000
                                continue
                            if frame.op == "close":
                                hint, fresh = _closed(frame)
                                break
                            was_heard, failures, refused = True, 0, False
                            self._turns.opened()
                            if frame.op == "alive":
                                continue
                            await self._take(frame)
                            yield frame
                except Broken as broken:
                    log.debug("the connection ended: %s", broken)
                except WhimbrelError as error:
                    if error.status == 401 and not refused:
                        refused = fresh = True
                        continue
                    if error.status == 403 and self._leave_refused(error):
                        continue
                    if error.status == 401 or error.is_final:
                        raise
                    hint = error.retry
                if not was_heard and not self._moved:
                    self._turns.failed()
                if not self._moved:
                    await self._rest(backoff(failures, hint))
                    failures += 1

    def _opened(self, headers: dict[str, str]) -> Link:
        after = self._position.values()
        if self._turns.way == "websocket":
            # Not every program has the package that it needs.
            from .transport.websocket import WebSocket

            return WebSocket(self._service, self._wish, after, headers)
        return Sse(self._service, self._wish, after, headers, self._turns.way == "post")

    async def _lived(self, link: Link) -> AsyncGenerator[Frame, None]:
        """Its frames, until another connection is wanted, or it died silently."""
        self._link = link
        life = Life(monotonic(), self._wish.silence, self._turns.way == "websocket")
        async with aclosing(link.frames()) as read:
            while not self._moved:
                following = asyncio.ensure_future(anext(read, None))
                try:
                    life.look(monotonic())
                    await self._watch(life, link, following)
                finally:
                    if not following.done():
                        following.cancel()
                        await asyncio.wait((following,))
                frame = None if self._moved else following.result()
                if frame is None:
                    return
                life.hear(monotonic())
                yield frame

    async def _watch(self, life: Life, link: Link, following: asyncio.Future[Frame | None]) -> None:
        """Returns when a frame came, or another connection is wanted."""
        while not following.done() and not self._moved:
            if self._slept is not None:
                life.wake(monotonic(), self._slept)
                self._slept = None
            if life.pings(monotonic()):
                await link.say({"op": "ping"})
            elif life.is_over(monotonic()):
                raise Broken("it is silent")
            await self._nudged(life.deadline - monotonic(), following)

    async def _nudged(self, seconds: float, *others: asyncio.Future[Any]) -> None:
        """Returns when something is to be looked at, one of the others is done, or the time is over."""
        nudge: asyncio.Future[Any] = asyncio.ensure_future(self._nudge.wait())
        try:
            await asyncio.wait((nudge, *others), timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nudge.cancel()
            self._nudge.clear()

    async def _rest(self, seconds: float) -> None:
        """Waits before another attempt, unless one is wanted sooner."""
        end = monotonic() + seconds
        self._slept = None
        while not self._moved and self._slept is None and monotonic() < end:
            await self._nudged(end - monotonic())

    def _leave_refused(self, error: WhimbrelError) -> bool:
        """What was open before goes on without the streams that are refused now, if there are others."""
        named = [stream for stream in self.streams if stream in error.detail.split()]
        refused = named or [stream for stream in self.streams if stream not in self._granted]
        rest = tuple(stream for stream in self.streams if stream not in refused)
        if not self._granted or not refused or not rest:
            return False
        self.follow(rest)
        for stream in refused:
            self._refuse(stream, error)
        return True

    def _refuse(self, stream: str, error: WhimbrelError) -> None:
        if self._on_refused:
            self._on_refused(stream, error)
        else:
            log.warning("%s is not followed: %s", stream, error)

    async def _take(self, frame: Frame) -> None:
        op, content = frame.op, frame.content
        if frame.cursor:
            self._position.move(frame.cursor)
        elif "positions" in content:
            self._position.settle(content["positions"])
        elif op in ("event", "position") and content.get("id"):
            self._position.pass_by(content["stream"], content["id"])
        if "connection" in content and op in ("position", "ready"):
            self.id = content["connection"]
            self._granted = self.streams
        if op == "expiring":
            await self._renew()
        if op == "unsubscribed":
            self._leave(content["stream"])
        if op == "error":
            log.warning("the service refused: %s", content.get("detail"))

    def _leave(self, stream: str) -> None:
        """The service ended a stream, and goes on with the others."""
        rest = tuple(name for name in self.streams if name != stream)
        if stream in self.streams and rest:
            self._position.follow(self.streams, rest, "")
            self._wish = replace(self._wish, streams=rest)
            self._refuse(stream, WhimbrelError("forbidden", f"the new token does not name {stream}", 403))

    async def _renew(self) -> None:
        """In place; where that fails, the connection ends in time, and the next one has a new token."""
        try:
            token = await self._service.token(fresh=True)
            if self._link and not await self._link.say({"op": "renew", "token": token}):
                await self._service.call("POST", f"/v1/connections/{self.id}/renew", patience=0)
        except WhimbrelError as error:
            log.warning("the token was not renewed: %s", error)


def _closed(frame: Frame) -> tuple[float, bool]:
    final = final_of(frame)
    if final:
        raise final
    return frame.content["retry"] / 1000, frame.content["reason"] == "expired"
