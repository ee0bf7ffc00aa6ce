"""Acknowledging: the newest event of each device, one request at a time, repeated until it is answered."""

from __future__ import annotations

import asyncio
import json

from .connection import log
from .errors import WhimbrelError
from .position import is_after
from .service import Service, path_of

#: Seconds that closing waits for what is under way.
PATIENCE = 5.0


class Acknowledger:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._newest: dict[str, str] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def ack(self, stream: str, id: str | None) -> None:
        """Returns once this id, or a newer one, is acknowledged."""
        task = self._begin(stream, id)
        if task:
            # Others may wait for it too.
            await asyncio.shield(task)

    def soon(self, stream: str, id: str | None) -> None:
        """Acknowledges in the background; what fails is logged, and made good by the next one."""
        task = self._begin(stream, id)
        if task:
            task.add_done_callback(_logged)

    async def drain(self) -> None:
        """Waits for what is under way, and not for long."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=PATIENCE)

    async def aclose(self) -> None:
        """Gives up what is not done soon."""
        await self.drain()
        for task in self._running.values():
            task.cancel()

    def _begin(self, stream: str, id: str | None) -> asyncio.Task[None] | None:
        if id and is_after(id, self._newest.get(stream)):
            self._newest[stream] = id
            if stream not in self._running:
                self._running[stream] = asyncio.create_task(self._run(stream))
        return self._running.get(stream)

    async def _run(self, stream: str) -> None:
        done = None
        try:
            while done != self._newest[stream]:
                done = self._newest[stream]
                headers = {"content-type": "application/json"}
                content = json.dumps({"id": done}).encode()
                await self._service.call("POST", path_of(stream) + "/ack", content=content, headers=headers)
        except BaseException:
            # So that it can be acknowledged again.
            self._newest.pop(stream, None)
            raise
        finally:
            del self._running[stream]


def _logged(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, WhimbrelError):
        log.warning("an event was not acknowledged: %s", error)
