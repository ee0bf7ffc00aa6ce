"""Notices that the machine slept, or the program stood still: by the clock more time passed than was waited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between looks at the clock.
EVERY = 1.0

#: A busy program is late too, by less than this.
STILL = 3.0

#: The clock on the wall, which goes on while the machine sleeps.
clock = time.time


class Wake:
    """Looks at the clock for as long as somebody wants to be called."""

    def __init__(self) -> None:
        self._calls: list[Callable[[float], None]] = []
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def calls(self, call: Callable[[float], None]) -> Iterator[None]:
        """Calls it after each time that nothing ran, with the seconds of it that the event loop's clock does not show."""
        self._calls.append(call)
        self._looking = self._looking or asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._calls.remove(call)
            if self._looking and not self._calls:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while True:
            before, shown = clock(), time.monotonic()
            await asyncio.sleep(EVERY)
            passed = clock() - before
            if passed > EVERY + STILL:
                unseen = max(passed - (time.monotonic() - shown), 0.0)
                for call in list(self._calls):
                    call(unseen)
