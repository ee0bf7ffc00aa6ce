"""Ids of events in their order."""

from __future__ import annotations


def is_after(id: str, other: str | None) -> bool:
    """Whether an event comes after another one of its stream."""
    return other is None or _order(id) > _order(other)


def _order(id: str) -> tuple[int, int]:
    ms, _, seq = id.partition("-")
    return int(ms), int(seq)
