"""What a durable store keeps its tables in: all but the payloads, of which it keeps references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from relive.consumers.progress import Progress
from relive.core.tail import Table

# The segment files, beside the tables of the state.
SEGMENTS = "segments"
TABLES: tuple[str, ...] = (*(str(table) for table in Table), SEGMENTS)

# Above every key there is: of the state's tables, keys begin with a partition and are short.
AFTER_ALL = b"\xff" * 511

TableChanges: TypeAlias = Mapping[str, Mapping[bytes, bytes | None]]


class TableReads(Protocol):
    """Ordered tables of small values.

    `get` may be called from any thread; the rest from one at a time, or under the store's lock.
    """

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value, or None."""

    def get_many(self, table: str, keys: Iterable[bytes]) -> list[bytes | None]:
        """The value of each key, or None."""

    def scan(self, table: str, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values with start <= key < stop, ascending."""


@dataclass(frozen=True, slots=True)
class TablesCopy:
    """A copy that is to be made.

    Attributes:
        size: of it, in bytes.
        write: makes it, and tells how much of it there is.
    """

    size: int
    write: Callable[[Progress], None]


class Tables(TableReads, Protocol):
    """Tables that change as a whole or not at all."""

    def commit(self, changes: TableChanges) -> None:
        """Make all changes durable, or none of them.

        Raises:
            StoreError, StoreFull: nothing was changed.
            StoreStopped: what is on disk is unknown.
        """

    def copying(self, directory: Path) -> AbstractContextManager[TablesCopy]:
        """Fixes what is copied on entering, under the store's lock; what it gives then copies.

        The copy says that it was closed in good order.
        """

    def disk_bytes(self) -> int:
        """What the files take."""

    def close(self, in_order: bool) -> None:
        """Release them.

        Args:
            in_order: note that they were closed as they should be, and what they look like.
        """
