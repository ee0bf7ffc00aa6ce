"""What every request has: an address, a token, and patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from .backoff import backoff
from .credentials import Credentials, Token
from .errors import WhimbrelError, error_of
from .wake import Wake


def parts_of(stream: str) -> tuple[str, str]:
    """A stream's kind and name. ``ValueError`` if it is not ``device:NAME`` or ``topic:NAME``."""
    kind, _, name = stream.partition(":")
    if kind not in ("device", "topic") or not name:
        raise ValueError(f"{stream!r} is not device:NAME or topic:NAME")
    return kind, name


def parameters_of(streams: Sequence[str]) -> list[tuple[str, Any]]:
    """``device=`` and ``topic=`` for each stream."""
    return [parts_of(stream) for stream in streams]


def path_of(stream: str) -> str:
    """``/v1/devices/42`` for ``device:42``."""
    kind, name = parts_of(stream)
    return f"/v1/{kind}s/{quote(name, safe='')}"


class Service:
    """Requests that are repeated until they are answered."""

    def __init__(
        self, url: str, token: Token, http: httpx.AsyncClient, ways: Sequence[str], websocket: dict[str, Any]
    ) -> None:
        self.url = url.rstrip("/")
        self.http = http
        #: How to listen: see :mod:`.transport`.
        self.ways = ways
        #: Options of ``websockets.connect``.
        self.websocket = websocket
        self.wake = Wake()
        self._credentials = Credentials(token)
        #: Frames of connections that were not closed yet.
        self.open: set[AsyncGenerator[Any, None]] = set()

    async def token(self, fresh: bool = False) -> str | None:
        """The token; a new one if need be."""
        return await self._credentials.get(fresh)

    async def headers(self, fresh: bool = False) -> dict[str, str]:
        """With the token; a new one if need be."""
        token = await self.token(fresh)
        return {"authorization": f"Bearer {token}"} if token else {}

    async def call(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: list[tuple[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
        patience: float = 60.0,
    ) -> Any:
        """The answer's JSON. A 401 gets a new token once; what the service refused for good is raised."""
        end = time.monotonic() + patience
        failures = 0
        refused = False
        while True:
            try:
                given = {**(headers or {}), **await self.headers(refused)}
                response = await self.http.request(method, self.url + path, content=content, params=params, headers=given)
                if response.is_success:
                    return response.json()
                error = await error_of(response)
            except WhimbrelError as cause:
                error = cause
            except (httpx.TransportError, ValueError) as cause:
                error = WhimbrelError("unreachable", str(cause))
            if error.status == 401 and not refused:
                refused = True
                continue
            wait = backoff(failures, error.retry)
            if error.status == 401 or error.is_final or time.monotonic() + wait > end:
                raise error
            failures += 1
            await asyncio.sleep(wait)
