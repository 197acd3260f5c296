"""Opens the state store of a configured backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from relive.consumers import file_store, lmdb_store
from relive.consumers.store import StateStore

Backend: TypeAlias = Literal["lmdb", "file"]

_STORES: dict[str, Callable[[Path], StateStore]] = {
    lmdb_store.BACKEND: lmdb_store.LmdbStore,
    file_store.BACKEND: file_store.FileStore,
}


def open_store(directory: Path, backend: Backend) -> StateStore:
    """Open the state in a directory, or make it.

    Raises:
        StoreInUse, StoreIncompatible, StoreDamaged, StoreError: see `DurableStore`.
    """
    return _STORES[backend](directory)
