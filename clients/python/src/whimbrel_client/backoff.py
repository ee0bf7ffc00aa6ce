"""Waits between attempts."""

from __future__ import annotations

import random

FIRST = 0.5
MOST = 30.0


def backoff(failures: int, hint: float | None = None) -> float:
    """Seconds after so many failures in a row: growing, jittered, and never less than ``hint``."""
    most = min(MOST, FIRST * 2.0 ** min(failures, 10))
    return max(hint or 0.0, most * random.uniform(0.5, 1))
