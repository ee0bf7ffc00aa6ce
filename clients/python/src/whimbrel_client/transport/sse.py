"""Server-Sent Events, by GET or POST."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from ..errors import error_of
from ..service import Service
from . import Broken, Frame, Wish
from .parse import Block, blocks

#: A longer query goes into a body, as some proxies refuse it: the usual ones at 8 KiB with all headers.
LONGEST = 4000


class Sse:
    def __init__(self, service: Service, wish: Wish, after: list[str], headers: dict[str, str], by_post: bool) -> None:
        self._service = service
        self._wish = wish
        self._after = after
        self._headers = {"accept": "text/event-stream", **headers}
        self._by_post = by_post

    async def frames(self) -> AsyncGenerator[Frame, None]:
        # How long it may be silent is the connection's affair.
        timeout = httpx.Timeout(10.0, read=None)
        method, url, content = self._request()
        try:
            async with self._service.http.stream(
                method, url, content=content, headers=self._headers, timeout=timeout
            ) as response:
                if response.status_code != 200 or not _is_stream(response):
                    raise await error_of(response)
                async for block in blocks(response.aiter_text()):
                    yield _frame(block)
        except httpx.TransportError as cause:
            raise Broken(str(cause)) from cause

    async def say(self, message: dict[str, Any]) -> bool:
        return False

    def _request(self) -> tuple[str, httpx.URL, bytes | None]:
        wish = self._wish
        url = httpx.URL(self._service.url + "/v1/sse")
        asked = url.copy_with(params=[*wish.parameters(self._after), ("envelope", "1")])
        if not self._by_post and len(asked.query) <= LONGEST:
            return "GET", asked, None
        body = {"streams": wish.streams, "after": self._after, "types": wish.types, "members": wish.members}
        self._headers["content-type"] = "application/json"
        return "POST", url, json.dumps({**body, "envelope": True}).encode()


def _frame(block: Block) -> Frame:
    if block.retry is not None:
        return Frame("retry", {"retry": block.retry})
    if not block.data:
        return Frame("alive")
    is_notice = block.type.startswith("whimbrel:") and block.type != "whimbrel:abandoned"
    op = block.type.removeprefix("whimbrel:") if is_notice else "event"
    return Frame(op, json.loads("\n".join(block.data)), block.id)


def _is_stream(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.startswith("text/event-stream")
