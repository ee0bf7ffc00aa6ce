"""What went wrong, and whether trying again can help."""

from __future__ import annotations

import httpx

PROBLEM = "urn:whimbrel:problem:"


class WhimbrelError(Exception):
    """The service refused something for good, or could not be reached for too long."""

    def __init__(self, code: str, detail: str = "", status: int | None = None, retry: float | None = None) -> None:
        super().__init__(detail or code)
        #: The problem's name, such as ``forbidden``; ``unreachable`` without an answer of the service's own.
        self.code = code
        self.detail = detail
        #: The answer's status, if there was one.
        self.status = status
        #: When to come back, in seconds, if the service said so.
        self.retry = retry

    @property
    def is_final(self) -> bool:
        """Whether the service itself refused it for good. A 401 is for whoever asks to judge."""
        passing = self.code == "unreachable" or self.status in (401, 408, 429)
        return not passing and (self.status is None or self.status < 500)


async def error_of(response: httpx.Response) -> WhimbrelError:
    """What an answer that is no success says. A proxy's answer, say in HTML, has no code."""
    await response.aread()
    code, detail = "unreachable", f"status {response.status_code}"
    if response.status_code == 204:
        code = "stopped"
    try:
        problem = response.json()
        if problem["type"].startswith(PROBLEM):
            code, detail = problem["type"].removeprefix(PROBLEM), problem.get("detail", "")
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    after = response.headers.get("retry-after", "")
    return WhimbrelError(code, detail, response.status_code, float(after) if after.isdigit() else None)
