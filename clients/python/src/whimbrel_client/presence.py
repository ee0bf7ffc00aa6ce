"""Who is in a topic: the list, and who joins and leaves from then on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from .connection import Connection
from .service import Service, path_of
from .transport import Wish

#: No event is of this type, so none is sent along.
NOTHING = "-"


@dataclass(frozen=True)
class Member:
    """A device that follows a topic as a member; ``info`` is what its token says."""

    device: str
    info: Any = None


@dataclass(frozen=True)
class Change:
    """A device ``joined`` a topic, or left it."""

    joined: bool
    stream: str
    device: str
    info: Any = None


async def members_of(service: Service, topic: str, patience: float = 60.0) -> list[Member]:
    """All members, page by page."""
    members: list[Member] = []
    after: str | None = ""
    while after is not None:
        params = [("after", after)] if after else []
        page = await service.call("GET", path_of(topic) + "/members", params=params, patience=patience)
        members += [Member(member["device"], member.get("info")) for member in page["members"]]
        after = page["next"]
    return members


class Presence:
    """The members of a topic, as they are at first and again after each change."""

    def __init__(self, service: Service, topic: str, device: str | None, silence: float) -> None:
        streams = (topic, f"device:{device}") if device else (topic,)
        self._connection = Connection(service, Wish(streams, (NOTHING,), True, silence), "now")
        self._service = service
        self._topic = topic
        self._lists = self._run()

    def __aiter__(self) -> Presence:
        return self

    async def __anext__(self) -> list[Member]:
        return await anext(self._lists)

    async def aclose(self) -> None:
        """Ends the connection, and with it the membership."""
        await self._lists.aclose()

    async def _run(self) -> AsyncGenerator[list[Member], None]:
        members: dict[str, Member] = {}
        frames = self._connection.frames()
        try:
            async for frame in frames:
                content = frame.content
                # Another connection, or `members`: the service may have missed to pass on who joined or left.
                if frame.op in ("members", "ready") or (frame.op == "position" and "connection" in content):
                    listed = await members_of(self._service, self._topic, patience=float("inf"))
                    members = {member.device: member for member in listed}
                elif frame.op == "joined":
                    members[content["device"]] = Member(content["device"], content.get("info"))
                elif frame.op == "left":
                    members.pop(content["device"], None)
                else:
                    continue
                yield list(members.values())
        finally:
            await self._connection.close(frames)
