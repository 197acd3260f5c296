"""Publishing events to the log."""

from relive.producers.compose import Composer
from relive.producers.publisher import Publisher

__all__ = ["Composer", "Publisher"]
