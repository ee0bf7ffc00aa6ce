"""The client for Whimbrel: publish, listen with resume, acknowledge, presence, and state."""

from .client import Draft, Published, Whimbrel
from .credentials import Token
from .errors import WhimbrelError
from .listener import Event, Gap, Listener
from .presence import Change, Member, Presence
from .state import Snapshot, State

__all__ = [
    "Change",
    "Draft",
    "Event",
    "Gap",
    "Listener",
    "Member",
    "Presence",
    "Published",
    "Snapshot",
    "State",
    "Token",
    "Whimbrel",
    "WhimbrelError",
]
