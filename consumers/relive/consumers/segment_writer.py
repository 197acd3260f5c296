"""Appends the payloads of one commit to segment files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from relive.consumers.durable_files import (
    create,
    sync,
    sync_directory,
    was_only_full,
    write_all,
)
from relive.consumers.payload_segments import (
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Reference,
    header,
)
from relive.consumers.segment_reader import SegmentReader
from relive.errors import StoreError, StoreFull, StoreStopped

# Put together in memory that is in the processor's cache still when it is written.
_WRITE_BYTES = 256 * 1024


class Place(NamedTuple):
    """Where the next payload goes.

    Attributes:
        number: of the segment.
        size: of the segment; 0 if it isn't there yet.
    """

    number: int
    size: int


class SegmentWriter:
    """Appends payloads behind a place, and takes them back if the commit fails.

    Args:
        files: names the segment files.
        directory: they are in.
        place: where the first one goes.
        full_size: a segment of this size takes no more.

    Attributes:
        appended: bytes and number of the payloads in each segment that was appended to, once
            `finish` was called.
    """

    def __init__(self, files: SegmentReader, directory: Path, place: Place, full_size: int) -> None:
        self._files = files
        self._directory = directory
        self._start = place
        self._number, self._size = place
        self._full_size = full_size
        self._descriptor = -1
        self._made: list[int] = []
        self._opened_at = 0
        self._count = 0
        self.appended: dict[int, tuple[int, int]] = {}
        # What is to be written next, behind what is.
        self._waiting: list[bytes] = []
        self._written = 0

    @property
    def place(self) -> Place:
        """Where the next payload would go."""
        return Place(self._number, self._size)

    def append(self, payloads: Iterable[tuple[bytes, bytes]]) -> dict[bytes, Reference]:
        """Append payloads, at the latest when `finish` is called; says where each is, by key.

        Raises:
            OSError: `undo` then says what has become of it.
        """
        places: dict[bytes, Reference] = {}
        waiting, full_size = self._waiting, self._full_size
        for key, payload in payloads:
            length = len(payload)
            if length > MAX_PAYLOAD_BYTES:
                said = f"a payload has {length} bytes, at most {MAX_PAYLOAD_BYTES} fit"
                raise StoreError(said)
            if self._descriptor < 0 or self._size >= full_size:
                self._next_segment()
            places[key] = Reference(self._number, self._size, length, crc32(payload))
            waiting.append(payload)
            self._size += length
            self._count += 1
            if self._size - self._written >= _WRITE_BYTES:
                self._write()
        return places

    def finish(self) -> None:
        """Make everything appended durable.

        Raises:
            OSError: as `append`.
        """
        if self._descriptor >= 0:
            self._end_segment()
        if self._made:
            sync_directory(self._directory)

    def undo(self, reason: BaseException) -> StoreError:
        """Take back everything appended; returns what to tell.

        A `StoreStopped` says that it could not be taken back, or that the failure leaves open what
        is on disk.
        """
        said = f"cannot write the payloads in {self._directory}: {reason}"
        try:
            self.take_back()
        except OSError as error:
            return StoreStopped(f"{said}; nor take back what was written: {error}")
        if isinstance(reason, StoreError):
            return reason
        if isinstance(reason, OSError) and was_only_full(reason):
            return StoreFull(f"there is no room left for payloads in {self._directory}: {reason}")
        return StoreStopped(f"{said}; reopen it to go on")

    def take_back(self) -> None:
        """Leave the files as they were before the first `append`.

        Raises:
            OSError: they are not.
        """
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        for number in self._made:
            self._files.forget(number)
            self._files.path(number).unlink(missing_ok=True)
        if self._start.size:
            os.truncate(self._files.path(self._start.number), self._start.size)

    def _next_segment(self) -> None:
        if self._descriptor >= 0:
            self._end_segment()
            self._number += 1
            self._size = 0
        self._open()

    def _open(self) -> None:
        path = self._files.path(self._number)
        if self._size:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        else:
            self._made.append(self._number)
            self._descriptor = create(path)
            write_all(self._descriptor, header(self._number), 0)
            self._size = HEADER_BYTES
        self._opened_at = self._written = self._size
        self._count = 0

    def _write(self) -> None:
        write_all(self._descriptor, b"".join(self._waiting), self._written)
        self._waiting.clear()
        self._written = self._size

    def _end_segment(self) -> None:
        self._write()
        self.appended[self._number] = self._size - self._opened_at, self._count
        sync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
