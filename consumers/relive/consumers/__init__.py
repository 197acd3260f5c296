"""From the log to durable state: materializer and state stores."""

from relive.consumers.file_store import FileStore
from relive.consumers.lmdb_store import LmdbStore
from relive.consumers.materializer import Materializer
from relive.consumers.memory_store import MemoryStore
from relive.consumers.opening import Backend, open_store
from relive.consumers.store import DiskUse, StateStore
from relive.consumers.store_check import Verdict, verify_store

__all__ = [
    "Backend",
    "DiskUse",
    "FileStore",
    "LmdbStore",
    "Materializer",
    "MemoryStore",
    "StateStore",
    "Verdict",
    "open_store",
    "verify_store",
]
