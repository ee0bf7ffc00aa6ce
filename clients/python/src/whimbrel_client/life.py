"""How long a connection may be silent: a value, to which the time is given."""

from __future__ import annotations

#: Seconds in which the first frame has to be there.
OPENING = 10.0

#: Seconds in which a ping has to be answered.
ANSWER = 5.0

#: Seconds for what already waits in the socket to be read.
GRACE = 2.0


class Life:
    """Of a connection that was opened ``now``. Dead after ``silence`` seconds without a sign of life, or after a ping
    without an answer, where one ``can_ask``."""

    def __init__(self, now: float, silence: float, can_ask: bool) -> None:
        #: When :meth:`is_over` may be true, or a ping is due.
        self.deadline = now + OPENING
        self._heard = now
        self._silence = silence
        self._can_ask = can_ask
        self._asked = self._is_open = False

    def hear(self, now: float) -> None:
        """A sign of life came."""
        self._heard = now
        self._is_open, self._asked = True, False
        self.deadline = now + (self._interval if self._can_ask else self._silence)

    def look(self, now: float) -> None:
        """It is read again: until now others were busy."""
        self.deadline = max(self.deadline, now + GRACE)

    def wake(self, now: float, unseen: float) -> None:
        """Nothing ran for a while, of which ``now`` does not show ``unseen`` seconds. The connection may have died."""
        if self._is_open and not self._asked:
            # The service pings, so one that lives has something to read after an interval.
            due = now if self._can_ask else self._heard + 1.2 * self._interval - unseen
            self.deadline = max(min(self.deadline, due), now if self._can_ask else now + GRACE)

    def pings(self, now: float) -> bool:
        """Whether a ping is to be sent. Its answer is awaited from then on."""
        due = now >= self.deadline and self._can_ask and self._is_open and not self._asked
        if due:
            self._asked, self.deadline = True, now + ANSWER
        return due

    def is_over(self, now: float) -> bool:
        """Whether it counts as dead."""
        return now >= self.deadline

    @property
    def _interval(self) -> float:
        """The service's ping interval, of which ``silence`` is more than two."""
        return self._silence / 2.2
