"""Reads payloads out of segment files, and checks each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from relive.consumers.held_reads import read_at
from relive.consumers.payload_segments import (
    HEADER_BYTES,
    Reference,
    Segment,
    header,
    unpack_references,
)
from relive.core.checksum import crc32
from relive.errors import StoreDamaged, StoreError

# Far below what a process may have open, and enough for most stores.
_OPEN_FILES = 128

# A scan reads this much ahead, once it has shown that it goes on.
_FIRST_BATCH = 16
_BATCH_PAYLOADS = 4_096
_BATCH_BYTES = 1024 * 1024
# Reading so many bytes for nothing is quicker than reading twice.
_GAP_BYTES = 32 * 1024


class _OpenFile:
    """A descriptor that is closed when nobody reads from it any more."""

    __slots__ = ("_close", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._close: Callable[[int], None] = os.close  # `os` may be gone at the very end

    def __del__(self) -> None:
        self._close(self.descriptor)


class SegmentReader:
    """Payloads by their references. May be used from any thread.

    Args:
        directory: of the segment files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open_files: dict[int, _OpenFile] = {}
        self._opening = threading.Lock()

    def path(self, number: int) -> Path:
        """The file of a segment."""
        return self._directory / f"payloads-{number:010d}"

    def check(self, number: int, segment: Segment) -> None:
        """Check that a file has a segment's header and its length.

        Raises:
            StoreDamaged: it doesn't, or isn't there.
        """
        path = self.path(number)
        descriptor = self._open(number).descriptor
        if os.pread(descriptor, HEADER_BYTES, 0) != header(number):
            raise StoreDamaged(path, "does not begin as a segment does", 0)
        size = os.fstat(descriptor).st_size
        if size < segment.size:
            raise StoreDamaged(path, f"was cut short, from {segment.size} bytes", size)

    def later(self, reference: Reference) -> Callable[[], bytes]:
        """What reads a payload, from a file that stays open for it.

        Raises, as does what is returned:
            StoreDamaged: it is not what was written.
            StoreError: it cannot be read.
        """
        return partial(self._read, self._open(reference.segment), reference)

    def read_in_order(
        self, entries: Iterator[tuple[bytes, bytes]]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and payloads in the order given, which are read in bulk where they lie together.

        Args:
            entries: keys, and references as stored.

        Raises:
            as `later`.
        """
        count = _FIRST_BATCH
        buffer = bytearray()
        while batch := list(islice(entries, count)):
            references = unpack_references([packed for _, packed in batch])
            payloads = [b""] * len(batch)
            for run in _runs(references):
                buffer = self._read_run(run, references, buffer, payloads)
            for (key, _), payload in zip(batch, payloads, strict=True):
                yield key, payload
            average = sum(map(len, payloads)) // len(payloads)
            count = min(4 * count, max(1, _BATCH_BYTES // max(1, average)), _BATCH_PAYLOADS)

    def forget(self, number: int) -> None:
        """Close the file of a segment that is gone, once nobody reads from it."""
        self._open_files.pop(number, None)

    def close(self) -> None:
        """Close all files, once nobody reads from them."""
        self._open_files.clear()

    def _read(self, file: _OpenFile, reference: Reference) -> bytes:
        number, offset, length, expected = reference
        try:
            payload = read_at(file.descriptor, length, offset)
        except OSError as error:
            raise StoreError(f"cannot read {self.path(number)}: {error}") from error
        if len(payload) != length or crc32(payload) != expected:
            raise self._damaged(reference)
        return payload

    def _read_run(
        self,
        run: list[int],
        references: Sequence[Reference],
        buffer: bytearray,
        payloads: list[bytes],
    ) -> bytearray:
        """Read payloads that lie together, by index; returns a buffer for the next time."""
        segment, start, _, _ = references[run[0]]
        _, last_offset, last_length, _ = references[run[-1]]
        length = last_offset + last_length - start
        if len(buffer) < length:
            buffer = bytearray(length)  # a new one each time would have to be zeroed by the system
        view = memoryview(buffer)[:length]
        try:
            read = os.preadv(self._open(segment).descriptor, [view], start)
        except OSError as error:
            raise StoreError(f"cannot read {self.path(segment)}: {error}") from error
        for index in run:
            _, offset, size, expected = references[index]
            at = offset - start
            payload = bytes(view[at : at + size])
            if crc32(payload) != expected or at + size > read:
                raise self._damaged(references[index])
            payloads[index] = payload
        return buffer

    def _damaged(self, reference: Reference) -> StoreDamaged:
        return StoreDamaged(
            self.path(reference.segment),
            f"a payload of {reference.length} bytes does not match its checksum",
            reference.offset,
        )

    def _open(self, number: int) -> _OpenFile:
        found = self._open_files.get(number)
        if found is not None:
            return found
        path = self.path(number)
        try:
            opened = _OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise StoreDamaged(path, "is missing") from None
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error}") from error
        with self._opening:
            if len(self._open_files) >= _OPEN_FILES:
                del self._open_files[next(iter(self._open_files))]
            self._open_files[number] = opened
        return opened


def _runs(references: Sequence[Reference]) -> Iterator[list[int]]:
    """The indices of the references in each stretch of a segment that is to be read at once."""
    run: list[int] = []
    segment = end = -1
    for index in sorted(range(len(references)), key=references.__getitem__):
        number, offset, length, _ = references[index]
        if run and (number != segment or offset - end > _GAP_BYTES):
            yield run
            run = []
        run.append(index)
        segment, end = number, offset + length
    if run:
        yield run
