"""The state store in plain files: tables in memory, a journal of commits, checkpoints.

    journal-GENERATION     the commits since the checkpoint of that generation
    checkpoint-GENERATION  all tables; the first generation has none

A commit is one record, durable before it counts. When the journal has outgrown the checkpoint, the
tables are written anew, as the next generation. Payloads stay on disk, in their own files.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from sortedcontainers import SortedDict

from relive.consumers import checkpoint, journal
from relive.consumers.closed_note import read_note, remove_note, write_note
from relive.consumers.durable_files import (
    copy_start,
    link_or_copy,
    sync,
    was_only_full,
    write_all,
    write_atomically,
)
from relive.consumers.durable_store import DurableStore
from relive.consumers.progress import Progress
from relive.consumers.tables import TABLES, TableChanges, TablesCopy
from relive.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreIncompatible,
    StoreStopped,
)

_log = logging.getLogger(__name__)

BACKEND: Final = "file"

# A smaller journal is not worth a checkpoint.
MIN_JOURNAL_BYTES = 512 * 1024

_FILE_NAME = re.compile(r"(journal|checkpoint)-(\d{10})")
_FIRST_SCANNED = 16
_MOST_SCANNED = 1_024


class FileStore(DurableStore):
    """A `StateStore` in a directory of plain files.

    Args:
        directory: made if missing, readable by its owner only.
        min_journal_bytes: a journal grows at least to this before it gives way to a checkpoint.

    Raises:
        as `DurableStore`.
    """

    def __init__(self, directory: Path, min_journal_bytes: int = MIN_JOURNAL_BYTES) -> None:
        super().__init__(
            directory, BACKEND, lambda where, new: FileTables(where, min_journal_bytes, new)
        )


class TablesInMemory:
    """Tables that are read from memory."""

    def __init__(self, tables: Mapping[str, Mapping[bytes, bytes]]) -> None:
        self._tables = {table: SortedDict(tables.get(table, {})) for table in TABLES}
        # Held while many entries change, or are read: not by `get`, which is one step.
        self._changing = threading.Lock()

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._tables[table].get(key)
        return value

    def get_many(self, table: str, keys: Iterable[bytes]) -> list[bytes | None]:
        entries = self._tables[table]
        return [entries.get(key) for key in keys]

    def scan(self, table: str, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        entries = self._tables[table]
        count = _FIRST_SCANNED
        inclusive = (True, False)
        while start < stop:
            with self._changing:
                keys = islice(entries.irange(start, stop, inclusive), count)
                found = [(key, entries[key]) for key in keys]
            yield from found
            if len(found) < count:
                return
            start = found[-1][0]
            inclusive = (False, False)
            count = min(2 * count, _MOST_SCANNED)

    def changing(self, changes: TableChanges) -> dict[str, dict[bytes, bytes | None]]:
        """The changes that make a difference: not those that remove what isn't there."""
        made = {}
        for table, entries in changes.items():
            there = self._tables[table]
            kept = {k: v for k, v in entries.items() if v is not None or k in there}
            if kept:
                made[table] = kept
        return made

    def apply(self, changes: TableChanges) -> None:
        """Make changes."""
        with self._changing:
            for table, entries in changes.items():
                _apply(entries, self._tables[table])


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the files of a directory say.

    Attributes:
        tables: all entries.
        generation: of the checkpoint and the journal.
        commit: the last one.
        journal_end: where the last record ends; a torn one lies behind it.
        checkpoint_bytes: size of the checkpoint's file; 0 if there is none.
    """

    tables: dict[str, dict[bytes, bytes]]
    generation: int
    commit: int
    journal_end: int
    checkpoint_bytes: int


class FileTables(TablesInMemory):
    """`Tables` in a journal and a checkpoint.

    Args:
        directory: of the store.
        min_journal_bytes: see `FileStore`.
        new: whether they are to be made.
    """

    def __init__(self, directory: Path, min_journal_bytes: int, new: bool) -> None:
        self._directory = directory
        self._min_journal_bytes = min_journal_bytes
        note = None if new else read_note(directory)
        if note is not None:
            note.check(directory)
        self._noted = note is not None
        if new:
            write_atomically(_path(directory, "journal", 0), journal.pack_header(0, 0))
        recovered = _recover(directory)
        super().__init__(recovered.tables)
        self._generation = recovered.generation
        self._commit = recovered.commit
        self._journal_end = recovered.journal_end
        self._checkpoint_bytes = recovered.checkpoint_bytes
        self._checkpoint_at = max(min_journal_bytes, recovered.checkpoint_bytes)
        self._remove_other_generations()
        path = self._journal_path
        self._journal = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        torn = path.stat().st_size - self._journal_end
        if torn:
            _log.info("%s: cut off %d bytes of a commit that was not made", path, torn)
            os.ftruncate(self._journal, self._journal_end)

    def commit(self, changes: TableChanges) -> None:
        made = self.changing(changes)
        if not made:
            return
        try:
            body = journal.pack_body(made)
        except ValueError as error:
            raise StoreError(f"the state in {self._directory} cannot hold it: {error}") from error
        if len(body) > journal.MAX_BODY_BYTES:
            raise StoreError(f"a commit of {len(body)} bytes is too large for the state")
        if self._noted:
            remove_note(self._directory)
            self._noted = False
        record = journal.pack_record(self._commit + 1, body)
        try:
            write_all(self._journal, record, self._journal_end)
            sync(self._journal)
        except OSError as error:
            raise self._taken_back(error) from error
        self._commit += 1
        self._journal_end += len(record)
        self.apply(made)
        if self._journal_end > self._checkpoint_at:
            self._try_checkpoint()

    @contextmanager
    def copying(self, directory: Path) -> Iterator[TablesCopy]:
        if self._checkpoint_bytes:
            source = _path(self._directory, "checkpoint", self._generation)
            link_or_copy(source, self._checkpoint_bytes, directory / source.name)
        target = directory / self._journal_path.name
        length = self._journal_end
        # A checkpoint may remove the journal meanwhile.
        source_journal = os.open(self._journal_path, os.O_RDONLY | os.O_CLOEXEC)

        def copy(progress: Progress) -> None:
            with progress.growing(target):
                copy_start(source_journal, length, target)
            write_note(target)

        try:
            yield TablesCopy(length, copy)
        finally:
            os.close(source_journal)

    def disk_bytes(self) -> int:
        return self._checkpoint_bytes + self._journal_end

    def close(self, in_order: bool) -> None:
        os.close(self._journal)
        if in_order and not self._noted:
            write_note(self._journal_path)

    @property
    def _journal_path(self) -> Path:
        return _path(self._directory, "journal", self._generation)

    def _taken_back(self, reason: OSError) -> StoreError:
        """Cut off what was written of a record; what to tell of it."""
        said = f"cannot write {self._journal_path}: {reason}"
        try:
            os.ftruncate(self._journal, self._journal_end)
        except OSError as error:
            return StoreStopped(f"{said}; nor cut it off again: {error}; reopen it to go on")
        if was_only_full(reason):
            return StoreFull(f"the state in {self._directory} has no room left: {reason}")
        return StoreStopped(f"{said}; reopen it to go on")

    def _try_checkpoint(self) -> None:
        try:
            self._checkpoint()
        except OSError as error:
            # The commit is made, and the journal has all that the checkpoint would have had.
            _log.warning("no checkpoint of the state in %s: %s", self._directory, error)
            self._checkpoint_at = self._journal_end + self._checkpoint_at // 2

    def _checkpoint(self) -> None:
        generation = self._generation + 1
        # First the journal: a checkpoint that is there has a journal.
        journal_path = _path(self._directory, "journal", generation)
        write_atomically(journal_path, journal.pack_header(generation, self._commit))
        new_journal = os.open(journal_path, os.O_RDWR | os.O_CLOEXEC)
        path = _path(self._directory, "checkpoint", generation)
        try:
            write_atomically(
                path, *checkpoint.pack_checkpoint(generation, self._commit, self._tables)
            )
        except BaseException:
            os.close(new_journal)
            raise
        os.close(self._journal)
        self._journal = new_journal
        self._generation = generation
        self._journal_end = journal.HEADER_BYTES
        self._checkpoint_bytes = path.stat().st_size
        self._checkpoint_at = max(self._min_journal_bytes, self._checkpoint_bytes)
        self._remove_other_generations()

    def _remove_other_generations(self) -> None:
        for (_, generation), path in _files(self._directory).items():
            if generation != self._generation:
                with suppress(OSError):  # next time, then
                    path.unlink()


def read_tables(directory: Path) -> TablesInMemory:
    """The tables of a store that nobody has open; changes no file.

    Raises:
        StoreDamaged, StoreIncompatible: see `FileStore`.
    """
    return TablesInMemory(_recover(directory).tables)


def _files(directory: Path) -> dict[tuple[str, int], Path]:
    """Journals and checkpoints, by kind and generation."""
    return {
        (name[1], int(name[2])): path
        for path in directory.iterdir()
        if (name := _FILE_NAME.fullmatch(path.name))
    }


def _path(directory: Path, kind: str, generation: int) -> Path:
    return directory / f"{kind}-{generation:010d}"


def _recover(directory: Path) -> Recovered:
    """Read the newest checkpoint and its journal."""
    files = _files(directory)
    generation = max((number for kind, number in files if kind == "checkpoint"), default=0)
    commit = checkpoint_bytes = 0
    # Not in order yet: to keep an order while entries come and go would take twice the time.
    tables: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
    if generation:
        commit, checkpoint_bytes = _read_checkpoint(directory, generation, tables)
    path = _path(directory, "journal", generation)
    if not path.exists():
        raise StoreDamaged(path, "is missing")
    content = path.read_bytes()
    found = journal.unpack_header(content)
    if found is None:
        raise StoreDamaged(path, "does not begin as a journal does", 0)
    _check_format(path, found.format, journal.JOURNAL_FORMAT)
    if (found.generation, found.commit) != (generation, commit):
        raise StoreDamaged(path, f"is the journal of another checkpoint ({found})")
    end = journal.HEADER_BYTES
    try:
        for record_end, body in journal.records(content, commit):
            end = record_end
            commit += 1
            for table, entries in journal.unpack_tables(body):
                _apply(entries, tables[table])
    except journal.BadRecord as error:
        raise StoreDamaged(path, "a commit is not what was written", error.offset) from error
    return Recovered(tables, generation, commit, end, checkpoint_bytes)


def _apply(changes: Mapping[bytes, bytes | None], entries: MutableMapping[bytes, bytes]) -> None:
    for key, value in changes.items():
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value


def _read_checkpoint(
    directory: Path, generation: int, tables: Mapping[str, MutableMapping[bytes, bytes]]
) -> tuple[int, int]:
    """Fill the tables from a checkpoint; returns its commit and its size in bytes."""
    path = _path(directory, "checkpoint", generation)
    content = path.read_bytes()
    found = checkpoint.unpack_header(content)
    if found is None:
        raise StoreDamaged(path, "is not what was written")
    _check_format(path, found.format, checkpoint.CHECKPOINT_FORMAT)
    if found.generation != generation:
        raise StoreDamaged(path, f"is the checkpoint of generation {found.generation}")
    for table, entries in journal.unpack_tables(checkpoint.tables_of(content)):
        _apply(entries, tables[table])
    return found.commit, len(content)


def _check_format(path: Path, found: int, known: int) -> None:
    if found != known:
        raise StoreIncompatible(
            f"{path} has format {found}, this version reads {known}; use the version that made it, "
            f"or remove {path.parent} to have the state rebuilt from the log"
        )
