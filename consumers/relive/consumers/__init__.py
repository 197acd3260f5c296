"""From the log to durable state: materializer, stores, snapshots, recovery; the past."""

from relive.consumers.file_store import FileStore
from relive.consumers.lmdb_store import LmdbStore
from relive.consumers.materializer import POISON_LIMIT, Materializer
from relive.consumers.memory_store import MemoryStore
from relive.consumers.opening import Backend, open_kept_store, open_store
from relive.consumers.overlay_store import OverlayStore
from relive.consumers.recovery import Recovered, StateDirectory, recovering
from relive.consumers.snapshot_loading import state_before_end
from relive.consumers.snapshots import Snapshot, Snapshots
from relive.consumers.snapshotter import SnapshotOptions, Snapshotter
from relive.consumers.store import DiskUse, StateStore
from relive.consumers.store_check import Verdict, verify_store
from relive.consumers.succession import Heir
from relive.consumers.time_travel import Moment, log_at, replay, state_at

__all__ = [
    "POISON_LIMIT",
    "Backend",
    "DiskUse",
    "FileStore",
    "Heir",
    "LmdbStore",
    "Materializer",
    "MemoryStore",
    "Moment",
    "OverlayStore",
    "Recovered",
    "Snapshot",
    "SnapshotOptions",
    "Snapshots",
    "Snapshotter",
    "StateDirectory",
    "StateStore",
    "Verdict",
    "log_at",
    "open_kept_store",
    "open_store",
    "recovering",
    "replay",
    "state_at",
    "state_before_end",
    "verify_store",
]
