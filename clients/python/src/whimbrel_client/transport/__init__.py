"""Ways to listen: what is asked for, what comes, and which way has its turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol

from ..errors import WhimbrelError
from ..service import parts_of

#: The ways, in the order in which they are tried.
ALL = ("sse", "websocket", "post")

#: Attempts of one that never opened before another one is tried.
ATTEMPTS = 2


class Broken(Exception):
    """The connection ended, or was not opened. Another one may be."""


@dataclass(frozen=True)
class Wish:
    """What is to be followed."""

    streams: tuple[str, ...]
    types: tuple[str, ...] = ()
    members: bool = False
    #: Seconds without a sign of life after which a connection counts as dead.
    silence: float = 60.0

    def __post_init__(self) -> None:
        for stream in self.streams:
            parts_of(stream)

    def parameters(self, after: Sequence[str]) -> list[tuple[str, str]]:
        """As the query of an address has them."""
        parameters = [parts_of(stream) for stream in self.streams]
        parameters += [("after", value) for value in after]
        parameters += [("types", ",".join(self.types))] if self.types else []
        parameters += [("members", "1")] if self.members else []
        return parameters


@dataclass(frozen=True)
class Frame:
    """An ``event``, or a notice by its name; ``retry`` and ``alive`` are for the connection alone."""

    op: str
    content: dict[str, Any] = field(default_factory=dict)
    #: The position of all streams after this frame, over SSE.
    cursor: str | None = None


class Link(Protocol):
    """One connection."""

    def frames(self) -> AsyncGenerator[Frame, None]:
        """They end with the connection, or with :class:`Broken`, or with a :class:`WhimbrelError`."""

    async def say(self, message: dict[str, Any]) -> bool:
        """Sends a message to the service. False where this way has no place for one."""


class Turns:
    """Which way is used now."""

    def __init__(self, ways: Sequence[str]) -> None:
        self._ways = ways
        self._at = 0
        self._attempts = 0

    @property
    def way(self) -> str:
        return self._ways[self._at]

    def opened(self) -> None:
        """The service was heard."""
        self._attempts = 0

    def failed(self) -> None:
        """The service was not heard."""
        self._attempts += 1
        if self._attempts >= ATTEMPTS:
            self._at = (self._at + 1) % len(self._ways)
            self._attempts = 0


def ways_of(transport: str | Sequence[str]) -> tuple[str, ...]:
    """The ways that are to be used, of those that this program can. ``ValueError`` if there is none."""
    ways = (transport,) if isinstance(transport, str) else tuple(transport)
    unknown = [way for way in ways if way not in ALL]
    if unknown or not ways:
        raise ValueError(f"transport is {transport!r}; allowed are {', '.join(ALL)}, or several of them")
    usable = tuple(way for way in ways if way != "websocket" or find_spec("websockets"))
    if not usable:
        raise ValueError("transport is 'websocket', which needs the package websockets: whimbrel-client[websocket]")
    return usable


def final_of(frame: Frame) -> WhimbrelError | None:
    """What a ``close`` means after which coming back would be against what was decided."""
    reason = frame.content["reason"]
    return WhimbrelError(reason) if reason in ("kicked", "replaced", "revoked") else None
