"""What every request has: an address, a token, and patience."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx

from .backoff import backoff
from .errors import WhimbrelError, error_of

#: A token or key, or where to get one.
Token = str | Callable[[], "str | Awaitable[str]"] | None


def path_of(stream: str) -> str:
    """``/v1/devices/42`` for ``device:42``."""
    kind, _, name = stream.partition(":")
    return f"/v1/{kind}s/{quote(name, safe='')}"


async def _ask(source: Callable[[], str | Awaitable[str]]) -> str:
    try:
        given = source()
        return await given if inspect.isawaitable(given) else given
    except Exception as cause:
        # It is tried again, as if the service had not been reached.
        raise WhimbrelError("unreachable", f"no token: {cause}") from cause


class Service:
    """Requests that are repeated until they are answered."""

    def __init__(self, url: str, token: Token, http: httpx.AsyncClient) -> None:
        self.url = url.rstrip("/")
        self.http = http
        self._source = token
        self._token: str | None = None

    async def headers(self, fresh: bool = False) -> dict[str, str]:
        """With the token; a new one if need be."""
        source = self._source
        if callable(source):
            if fresh or self._token is None:
                self._token = await _ask(source)
            source = self._token
        return {"authorization": f"Bearer {source}"} if source else {}

    async def call(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: dict[str, str] | None = None,
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
