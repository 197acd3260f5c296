"""The state store: what every backend promises.

A store keeps the tables of `relive.core.tail.Table`. It knows nothing of their content.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relive.consumers.progress import Progress
from relive.core.tail import Changes, KeyValues


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a store takes on disk, in bytes; all 0 for one in memory.

    Attributes:
        payloads_live: of the values in `Table.PAYLOADS`.
        payloads: of the files they are in.
        tables: of the files all else is in.
    """

    payloads_live: int = 0
    payloads: int = 0
    tables: int = 0


class StateStore(KeyValues, Protocol):
    """Durable tables. `get` may be called from any thread; the rest from one at a time.

    Reads see what the last `commit` left. One process owns a store.

    Raises:
        StoreDamaged: by any read, rather than returning what was not written.
    """

    def commit(self, changes: Changes) -> None:
        """Make all changes durable, or none of them.

        Raises:
            StoreError: nothing was changed.
            StoreFull: nothing was changed, and it may be tried again.
            StoreStopped: neither this commit nor any later one is made; reopen the store.
        """

    def copy_to(self, directory: Path, progress: Progress | None = None) -> None:
        """Make a consistent copy of what the last commit left, which the same kind of store opens.

        Files that never change again are hard links where the file system has them, and copies
        elsewhere. May run in another thread beside commits and gets.

        Args:
            directory: made if missing, and empty. If the copy fails, it is removed.
            progress: told how many bytes there are.

        Raises:
            StoreError: it could not be made.
        """

    def disk_use(self) -> DiskUse:
        """What the store takes on disk."""

    def close(self) -> None:
        """Release the store. Safe to call twice."""
