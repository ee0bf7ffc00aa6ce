"""The token: asked for once at a time, kept until it is about to expire."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import time
from collections.abc import Awaitable, Callable

from .errors import WhimbrelError

#: A token or key, or where to get one.
Token = str | Callable[[], "str | Awaitable[str]"] | None

#: Seconds before its end in which a token is not used any more.
MARGIN = 30.0


class Credentials:
    def __init__(self, source: Token) -> None:
        self._source = source
        self._token: str | None = None
        self._asked = 0
        self._lock = asyncio.Lock()

    async def get(self, fresh: bool = False) -> str | None:
        """The token; a new one where the last expires, or if need be."""
        source = self._source
        if not callable(source):
            return source
        asked = self._asked
        async with self._lock:
            wanted = fresh or self._token is None or time.time() > expiry_of(self._token) - MARGIN
            # Whoever asked meanwhile asked for all that waited.
            if wanted and asked == self._asked:
                self._token = await _ask(source)
                self._asked += 1
        return self._token


async def _ask(source: Callable[[], str | Awaitable[str]]) -> str:
    try:
        given = source()
        return await given if inspect.isawaitable(given) else given
    except Exception as cause:
        # It is tried again, as if the service had not been reached.
        raise WhimbrelError("unreachable", f"no token: {cause}") from cause


def expiry_of(token: str) -> float:
    """When a JWT expires; never, if it does not say. The service is the judge, this is only to be early."""
    try:
        claims = token.split(".")[1]
        expiry = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return float(expiry)
    except (IndexError, ValueError, TypeError, KeyError):
        return float("inf")
