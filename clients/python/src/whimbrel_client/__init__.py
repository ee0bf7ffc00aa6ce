"""The client for Whimbrel: publish, listen with resume, acknowledge."""

from .client import Draft, Published, Whimbrel
from .errors import WhimbrelError
from .listener import Event, Gap, Listener
from .service import Token

__all__ = ["Draft", "Event", "Gap", "Listener", "Published", "Token", "Whimbrel", "WhimbrelError"]
