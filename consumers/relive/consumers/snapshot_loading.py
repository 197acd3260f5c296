"""Reading what a snapshot holds."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from relive.consumers.committed import last_committed
from relive.consumers.ladder import Ladder
from relive.consumers.memory_store import MemoryStore
from relive.consumers.opening import Backend, open_store
from relive.consumers.snapshots import Snapshot, Snapshots
from relive.consumers.store import StateStore
from relive.core.tail import Table
from relive.errors import SnapshotError, SnapshotUnsound, StoreError
from relive.log import EventLog

_COPIED_AT_ONCE = 1_000
_NO_KEY = b"\xff" * 64


def state_before_end(snapshots: Snapshots, log: EventLog, *, oldest: bool = False) -> MemoryStore:
    """The state of a sound snapshot that lies within a log, in memory.

    Args:
        snapshots: where to look.
        log: that the snapshot has to be of; a `LogPrefix` for a state of the past.
        oldest: the oldest such snapshot instead of the newest.

    Returns:
        an empty store where there is none: the log's beginning is all there is to start from.
    """
    usable = Ladder(log).usable(snapshots, ())
    for snapshot in reversed(list(usable)) if oldest else usable:
        store = MemoryStore()
        with TemporaryDirectory(prefix="relive-past-") as place:
            try:
                load(snapshots, snapshot, Path(place) / "state", store)
            except (SnapshotError, StoreError):
                continue  # an older one will do as well
        return store
    return MemoryStore()


def load(snapshots: Snapshots, snapshot: Snapshot, place: Path, into: MemoryStore) -> None:
    """Put what a snapshot holds into an empty store in memory.

    Args:
        snapshots: that it is one of.
        snapshot: which one.
        place: where its files may be restored meanwhile.
        into: empty; left with part of it after an error.

    Raises:
        SnapshotError, StoreError: it cannot be read.
    """
    try:
        snapshots.restore(snapshot, place)()
        store = open_restored(place, backend_of_snapshot(snapshot), snapshot)
        try:
            copy_tables(store, into)
        finally:
            store.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def open_restored(restored: Path, backend: Backend, snapshot: Snapshot) -> StateStore:
    """The store of a restored snapshot.

    Its files are what was written, by their checksums, so that only what they are is compared.

    Raises:
        SnapshotUnsound, StoreError: it is not what the manifest names.
    """
    store = open_store(restored, backend)
    try:
        if last_committed(store) != snapshot.manifest.state:
            raise SnapshotUnsound("its state is not the one that its manifest names")
    except BaseException:
        store.close()
        raise
    return store


def backend_of_snapshot(snapshot: Snapshot) -> Backend:
    """The backend of the store that a usable snapshot is of."""
    return cast(Backend, snapshot.manifest.store)  # the ladder leaves others out


def copy_tables(source: StateStore, target: StateStore) -> None:
    """Put everything that is in one store into another one, which is empty."""
    for table in Table:
        entries = source.scan(table, b"", _NO_KEY)
        while some := dict(islice(entries, _COPIED_AT_ONCE)):
            target.commit({table: some})
