"""Opens the state store of a configured backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from relive.consumers import file_store, lmdb_store
from relive.consumers.made_note import Backend, read_made_note
from relive.consumers.store import StateStore

__all__ = ["Backend", "open_kept_store", "open_store"]

_STORES: dict[Backend, Callable[[Path], StateStore]] = {
    lmdb_store.BACKEND: lmdb_store.LmdbStore,
    file_store.BACKEND: file_store.FileStore,
}


def open_kept_store(directory: Path) -> StateStore | None:
    """Open the state in a directory, whichever backend made it; None if there is none.

    Raises:
        as `open_store`.
    """
    note = read_made_note(directory)
    if note is None or not note.finished:
        return None
    return _STORES[note.backend](directory)


def open_store(directory: Path, backend: Backend) -> StateStore:
    """Open the state in a directory, or make it.

    Raises:
        StoreInUse, StoreIncompatible, StoreDamaged, StoreError: see `DurableStore`.
    """
    return _STORES[backend](directory)
