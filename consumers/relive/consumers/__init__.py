"""From the log to durable state: materializer and state stores; the state of the past."""

from relive.consumers.lmdb_store import LmdbStore
from relive.consumers.materializer import POISON_LIMIT, Materializer
from relive.consumers.memory_store import MemoryStore
from relive.consumers.overlay_store import OverlayStore
from relive.consumers.store import StateStore
from relive.consumers.time_travel import Moment, log_at, replay, state_at

__all__ = [
    "POISON_LIMIT",
    "LmdbStore",
    "Materializer",
    "MemoryStore",
    "Moment",
    "OverlayStore",
    "StateStore",
    "log_at",
    "replay",
    "state_at",
]
