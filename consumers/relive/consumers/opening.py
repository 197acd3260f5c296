"""Opens the state store of a configured backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from relive.consumers import file_store, lmdb_store
from relive.consumers.durable_store import backend_of
from relive.consumers.store import StateStore
from relive.errors import StoreError

Backend: TypeAlias = Literal["lmdb", "file"]

_STORES: dict[str, Callable[[Path], StateStore]] = {
    lmdb_store.BACKEND: lmdb_store.LmdbStore,
    file_store.BACKEND: file_store.FileStore,
}


def open_kept_store(directory: Path) -> StateStore:
    """Open the state in a directory, whichever backend made it.

    Raises:
        StoreError: there is none; and as `open_store`.
    """
    backend = backend_of(directory)
    if backend not in _STORES:
        raise StoreError(f"there is no state in {directory}")
    return _STORES[backend](directory)


def open_store(directory: Path, backend: Backend) -> StateStore:
    """Open the state in a directory, or make it.

    Raises:
        StoreInUse, StoreIncompatible, StoreDamaged, StoreError: see `DurableStore`.
    """
    return _STORES[backend](directory)
