"""From the log to durable state: materializer and state stores."""

from relive.consumers.lmdb_store import LmdbStore
from relive.consumers.materializer import Materializer
from relive.consumers.memory_store import MemoryStore
from relive.consumers.store import StateStore

__all__ = ["LmdbStore", "Materializer", "MemoryStore", "StateStore"]
