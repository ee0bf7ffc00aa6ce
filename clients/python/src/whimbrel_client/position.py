"""Ids of events in their order, and where a connection stands in its streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Position:
    """A value of ``after``, or several, each overriding those before it; and newer ids of single streams."""

    def __init__(self, after: str) -> None:
        self._values = after.split()
        self._ids: dict[str, str] = {}

    def values(self) -> list[str]:
        """The values of ``after`` with which it is asked for."""
        return [*self._values, *(f"{stream}/{id}" for stream, id in self._ids.items())]

    def __str__(self) -> str:
        return " ".join(self.values())

    def move(self, after: str) -> None:
        """To a value, or several, for all streams."""
        self._values, self._ids = after.removesuffix(".stop").split(), {}

    def settle(self, ids: Mapping[str, str]) -> None:
        """To these ids, in all streams."""
        self._values, self._ids = [], dict(ids)

    def pass_by(self, stream: str, id: str) -> None:
        """Over an event of one stream."""
        self._ids[stream] = id

    def follow(self, before: Sequence[str], streams: Sequence[str], more: str) -> None:
        """Of other streams than ``before``, with ``more`` values for those that come."""
        if len(before) == 1:
            # An id, or a word, is of the one stream.
            self._values = [value if _is_whole(value) else f"{before[0]}/{value}" for value in self._values]
        values = [value for value in self.values() if "/" not in value or value.partition("/")[0] in streams]
        self.move(" ".join([*values, *more.split()]))


def is_after(id: str, other: str | None) -> bool:
    """Whether an event comes after another one of its stream."""
    return other is None or _order(id) > _order(other)


def _is_whole(value: str) -> bool:
    """Whether it says by itself of which streams it is."""
    return value.startswith("c1.") or "/" in value


def _order(id: str) -> tuple[int, int]:
    ms, _, seq = id.partition("-")
    return int(ms), int(seq)
