"""Reads ``text/event-stream``, however it is cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class Block:
    """An event; with nothing but ``retry`` a delay in milliseconds; with nothing at all a comment, a sign of life."""

    type: str = ""
    data: list[str] = field(default_factory=list)
    id: str | None = None
    retry: int | None = None


async def lines(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Lines by LF and CR LF, as the service ends them. ``str.splitlines`` would split data at U+2028 too."""
    rest = ""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        for line in whole:
            yield line.removesuffix("\r")


async def blocks(chunks: AsyncIterator[str]) -> AsyncIterator[Block]:
    """The events of a stream, and its comments."""
    block = Block()
    async for line in lines(chunks):
        if not line:
            if block.data:
                yield block
            block = Block()
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            yield Block()
        elif name == "data":
            block.data.append(value)
        elif name == "event":
            block.type = value
        elif name == "id":
            block.id = value
        elif name == "retry" and value.isdigit():
            yield Block(retry=int(value))
