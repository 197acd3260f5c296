"""A state store in a directory: tables, the files of the payloads beside them, and one owner.

owner.lock          held by the process that owns the store
store               what made the directory, and whether it was finished
closed              after a close in good order: what the tables' file looked like
payloads-NUMBER     segment files
…                   what the backend keeps its tables in
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from relive.consumers.durable_files import remove_temporary, sync_directory
from relive.consumers.made_note import (
    MADE_NOTE_NAME,
    Backend,
    read_made_note,
    write_made_note,
)
from relive.consumers.owner import OWNER_LOCK_NAME, own
from relive.consumers.payload_files import PayloadFiles
from relive.consumers.payload_segments import (
    Reference,
    live_bytes,
    segment_number,
    unpack_reference,
    unpack_segment,
)
from relive.consumers.progress import Progress
from relive.consumers.store import DiskUse
from relive.consumers.tables import AFTER_ALL, SEGMENTS, Tables
from relive.core.tail import Changes, Later, Table, later
from relive.errors import StoreDamaged, StoreError, StoreIncompatible, StoreStopped

_log = logging.getLogger(__name__)


class DurableStore:
    """A `StateStore` in a directory.

    Args:
        directory: made if missing, readable by its owner only.
        backend: what the tables are kept in.
        open_tables: opens them; makes them if it is told that they are new.

    Raises:
        StoreInUse: another process owns it.
        StoreIncompatible: another version or backend made it.
        StoreDamaged: what is there is not what was written.
        StoreError: it cannot be opened.
    """

    def __init__(
        self, directory: Path, backend: Backend, open_tables: Callable[[Path, bool], Tables]
    ) -> None:
        self._directory = directory
        self._backend = backend
        self._writing = threading.Lock()
        self._copies = threading.Condition()
        self._copying = 0
        self._closed = False
        self._stopped: StoreStopped | None = None
        with ExitStack() as undo:
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock_file = own(directory)
                undo.callback(os.close, self._lock_file)
                new = _is_new(directory, backend)
                if new:
                    _clear(directory)
                    write_made_note(directory, backend, finished=False)
                remove_temporary(directory)
                self._tables = open_tables(directory, new)
                undo.callback(self._tables.close, False)
                if new:
                    write_made_note(directory, backend, finished=True)
                segments = {
                    segment_number(key): unpack_segment(packed)
                    for key, packed in self._tables.scan(SEGMENTS, b"", AFTER_ALL)
                }
                self._payloads = PayloadFiles(directory, segments)
            except OSError as error:
                raise StoreError(f"cannot open the state in {directory}: {error}") from error
            undo.pop_all()

    # Reading

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.get_many(table, (key,))[0]

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        if table is not Table.PAYLOADS:
            return self._tables.get_many(table, keys)
        return [None if read is None else read() for read in self.get_later(table, keys)]

    def get_later(self, table: Table, keys: Sequence[bytes]) -> list[Later | None]:
        if table is not Table.PAYLOADS:
            return later(self._tables.get_many(table, keys))
        ticket = self._payloads.pin()
        try:
            return [
                None if packed is None else self._payloads.later(unpack_reference(packed))
                for packed in self._tables.get_many(table, keys)
            ]
        finally:
            self._payloads.unpin(ticket)

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        if table is not Table.PAYLOADS:
            return self._tables.scan(table, start, stop)
        return self._scan_payloads(start, stop)

    def disk_use(self) -> DiskUse:
        return DiskUse(
            live_bytes(self._payloads.segments),
            self._payloads.disk_bytes(),
            self._tables.disk_bytes(),
        )

    # Writing

    def commit(self, changes: Changes) -> None:
        with self._writing:
            if self._stopped is not None:
                raise StoreStopped(str(self._stopped)) from self._stopped
            try:
                self._commit(changes)
            except StoreStopped as error:
                self._stopped = error
                raise
            except StoreError:
                raise
            except OSError as error:
                said = f"cannot write the state in {self._directory}: {error}; reopen it to go on"
                self._stopped = StoreStopped(said)
                raise self._stopped from error
            except BaseException as error:
                self._stopped = StoreStopped(
                    f"a commit to {self._directory} was interrupted ({error!r}); reopen it to go on"
                )
                raise

    def copy_to(self, directory: Path, progress: Progress | None = None) -> None:
        with self._copies:
            if self._closed:
                raise StoreError(f"the state in {self._directory} is closed")
            self._copying += 1
        try:
            self._copy_to(directory, progress or Progress())
        finally:
            with self._copies:
                self._copying -= 1
                self._copies.notify_all()

    def close(self) -> None:
        with self._copies:
            if self._closed:
                return
            self._closed = True
            self._copies.wait_for(lambda: not self._copying)
        with self._writing:
            in_order = self._stopped is None
            self._stopped = self._stopped or StoreStopped(
                f"the state in {self._directory} is closed"
            )
            try:
                self._payloads.close()
                self._tables.close(in_order)
            except OSError as error:
                _log.warning(
                    "%s is closed, but has to be checked next time: %s", self._directory, error
                )
            finally:
                os.close(self._lock_file)

    def _commit(self, changes: Changes) -> None:
        others = {str(t): entries for t, entries in changes.items() if t is not Table.PAYLOADS}
        payloads = changes.get(Table.PAYLOADS)
        if not payloads:
            self._tables.commit(others)
            return
        staged = self._payloads.stage(payloads, self._references, self._all_references)
        try:
            self._tables.commit(
                {
                    **others,
                    Table.PAYLOADS: {
                        key: None if reference is None else reference.pack()
                        for key, reference in staged.references.items()
                    },
                    SEGMENTS: self._payloads.changed_segments(staged),
                }
            )
        except StoreStopped:
            raise  # the references may be on disk, and what they refer to must stay
        except StoreError as error:
            failure = staged.writer.undo(error)
            if failure is error:
                raise
            raise failure from error
        self._payloads.adopt(staged)

    def _copy_to(self, directory: Path, progress: Progress) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise StoreError(f"cannot copy the state to {directory}: it is not empty")
        except OSError as error:
            raise StoreError(f"cannot copy the state to {directory}: {error}") from error
        try:
            with ExitStack() as kept:
                with self._writing:
                    kept.callback(self._payloads.unpin, self._payloads.pin())
                    segments = self._payloads.seal()
                    tables = kept.enter_context(self._tables.copying(directory))
                size = tables.size + sum(segment.size for segment in segments)
                progress.begin("copying the state", size, "bytes")
                self._payloads.copy(segments, directory, progress)
                tables.write(progress)
            write_made_note(directory, self._backend, finished=True)
            sync_directory(directory)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise StoreError(f"cannot copy the state to {directory}: {error}") from error
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    # References

    def _scan_payloads(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        ticket = self._payloads.pin()
        try:
            yield from self._payloads.read_in_order(self._tables.scan(Table.PAYLOADS, start, stop))
        finally:
            self._payloads.unpin(ticket)

    def _references(self, keys: Iterable[bytes]) -> Iterable[Reference | None]:
        return [
            None if packed is None else unpack_reference(packed)
            for packed in self._tables.get_many(Table.PAYLOADS, keys)
        ]

    def _all_references(self) -> Iterator[tuple[bytes, Reference]]:
        for key, packed in self._tables.scan(Table.PAYLOADS, b"", AFTER_ALL):
            yield key, unpack_reference(packed)


def _is_new(directory: Path, backend: Backend) -> bool:
    """Whether the store in a directory is still to be made; if not, it is of this backend.

    Raises:
        StoreIncompatible: another version or backend made it.
        StoreDamaged: what says so is damaged.
    """
    note = read_made_note(directory)
    if note is None or not note.finished:
        return True
    if note.backend != backend:
        raise StoreIncompatible(
            f"the state in {directory} was made with persistence_backend {note.backend}, not "
            f"{backend}; set persistence_backend to {note.backend}, or remove {directory} to have "
            "the state rebuilt from the log"
        )
    return False


def _clear(directory: Path) -> None:
    """Remove what there is of a store that was never finished.

    Raises:
        StoreDamaged: something was committed to it all the same.
    """
    for path in directory.glob("payloads-*"):
        raise StoreDamaged(path, "is in a store that was never finished")
    for path in directory.iterdir():
        if path.name not in (OWNER_LOCK_NAME, MADE_NOTE_NAME):
            path.unlink()
