"""WebSocket, by the package ``websockets``, which is installed with ``whimbrel-client[websocket]``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from ..errors import WhimbrelError, error_of
from ..service import Service
from . import Broken, Frame, Wish

#: The close code of what will not be allowed the next time either.
NOT_ALLOWED = 1008

#: Seconds that a connection that may be dead has to take part in its end.
FAREWELL = 1.0


class WebSocket:
    def __init__(self, service: Service, wish: Wish, after: list[str], headers: dict[str, str]) -> None:
        self._service = service
        self._wish = wish
        self._after = after
        self._headers = headers
        self._socket: ClientConnection | None = None

    async def frames(self) -> AsyncGenerator[Frame, None]:
        url = httpx.URL(self._service.url + "/v1/ws", params=self._wish.parameters(self._after))
        address = str(url.copy_with(scheme=url.scheme.replace("http", "ws")))
        # The service bounds events. Whether it lives is asked by the connection.
        options = {"max_size": None, "ping_interval": None, "close_timeout": FAREWELL, **self._service.websocket}
        protocols = [Subprotocol("whimbrel.v1")]
        try:
            async with connect(address, additional_headers=self._headers, subprotocols=protocols, **options) as self._socket:
                async for text in self._socket:
                    yield _frame(text)
        except InvalidStatus as refused:
            answer = refused.response
            raise await error_of(
                httpx.Response(answer.status_code, headers=list(answer.headers.raw_items()), content=bytes(answer.body or b""))
            ) from refused
        except ConnectionClosed as closed:
            if closed.rcvd and closed.rcvd.code == NOT_ALLOWED:
                raise WhimbrelError("forbidden", closed.rcvd.reason, 403) from closed
            raise Broken(str(closed)) from closed
        except (OSError, WebSocketException, asyncio.TimeoutError) as cause:
            raise Broken(str(cause)) from cause

    async def say(self, message: dict[str, Any]) -> bool:
        # The frames of one that is closed end with the reason.
        with suppress(ConnectionClosed):
            if self._socket:
                await self._socket.send(json.dumps(message))
        return True


def _frame(text: str | bytes) -> Frame:
    content = json.loads(text)
    op = content.pop("op")
    return Frame({"pong": "alive"}.get(op, op), content)
