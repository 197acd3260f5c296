"""The payloads of a store: values that are stored once, in files that are only appended to.

A commit appends its payloads to the current segment file and makes them durable; only then are the
references to them committed, in the store's tables. So what lies behind the last committed
payload belongs to nobody, and is cut off when the store is opened.

A file that has a second name (a hard link in a copy of the store) never changes again. A segment
goes when nothing in it is live, after the commit that says so, and after everyone who began to
read before that commit has finished.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from relive.consumers.durable_files import copy_start, link_or_copy
from relive.consumers.payload_segments import (
    MIN_SEGMENT_BYTES,
    Reference,
    Segment,
    full_size,
    live_bytes,
    segment_key,
    worth_rewriting,
)
from relive.consumers.progress import Progress
from relive.consumers.segment_reader import SegmentReader
from relive.consumers.segment_writer import Place, SegmentWriter
from relive.errors import StoreDamaged, StoreError

_log = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"payloads-(\d{10})")

# A copy of the store links a current segment that is this full, and copies one that is less full:
# so copies neither cost much nor leave many small segments behind.
_LINKED_SHARE = 4

References = Callable[[Iterable[bytes]], Iterable[Reference | None]]


@dataclass(frozen=True, slots=True)
class Staged:
    """What a commit does to the payloads, durable but not referred to yet.

    Attributes:
        references: by key, where each new or moved payload is; None for one that goes.
        before: by key, where it was.
        segments: as they are after the commit.
        writer: that wrote them.
    """

    references: Mapping[bytes, Reference | None]
    before: Mapping[bytes, Reference]
    segments: Mapping[int, Segment]
    writer: SegmentWriter


class Copied(NamedTuple):
    """A segment that goes into a copy of the store.

    Attributes:
        number, size: which, and how much of it.
        linked: whether it never changes again, and may be a hard link.
    """

    number: int
    size: int
    linked: bool


class PayloadFiles:
    """The segment files in a directory.

    Args:
        directory: of the store.
        segments: as last committed.

    Raises:
        StoreDamaged: a file is missing, or shorter than was committed.
        StoreError: the directory cannot be read.
    """

    def __init__(self, directory: Path, segments: Mapping[int, Segment]) -> None:
        self._directory = directory
        self._reader = SegmentReader(directory)
        self._segments = dict(segments)
        self._residents: dict[int, set[bytes]] | None = None
        self._sealed: set[int] = set()
        self._epoch = 0
        self._tickets = itertools.count()
        self._pins: dict[int, int] = {}
        self._leaving: list[tuple[int, int]] = []
        try:
            for number, segment in segments.items():
                self._reader.check(number, segment)
            self._remove_all_but_committed()
            self._place = self._first_place()
        except OSError as error:
            raise StoreError(f"cannot open the payloads in {directory}: {error}") from error

    @property
    def segments(self) -> Mapping[int, Segment]:
        """As last committed; replaced, never changed."""
        return self._segments

    def disk_bytes(self) -> int:
        """Of all files, those included that are only kept for who still reads them."""
        size = 0
        for path in self._files().values():
            with suppress(FileNotFoundError):  # a commit may remove it meanwhile
                size += path.stat().st_size
        return size

    # Reading

    def later(self, reference: Reference) -> Callable[[], bytes]:
        """What reads a payload, also when it is gone by then; see `SegmentReader.later`."""
        return self._reader.later(reference)

    def read_in_order(
        self, entries: Iterator[tuple[bytes, bytes]]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and payloads; see `SegmentReader.read_in_order`."""
        return self._reader.read_in_order(entries)

    def pin(self) -> int:
        """Keeps every file that is referred to from now on, until `unpin`."""
        # Each step is atomic: this also runs where the garbage collector ends a scan.
        ticket = next(self._tickets)
        self._pins[ticket] = self._epoch
        return ticket

    def unpin(self, ticket: int) -> None:
        """Let go of what a ticket of `pin` keeps."""
        self._pins.pop(ticket, None)

    # Writing

    def stage(
        self,
        changes: Mapping[bytes, bytes | None],
        references: References,
        all_references: Callable[[], Iterator[tuple[bytes, Reference]]],
    ) -> Staged:
        """Make the payloads of a commit durable.

        Args:
            changes: payloads by key; None for one that goes.
            references: where the payloads of keys are.
            all_references: where all payloads are.

        Raises:
            StoreError: nothing was changed.
            StoreStopped: what is on disk is unknown.
            StoreDamaged: a payload that has to move is damaged; nothing was changed.
        """
        known = zip(changes, references(changes), strict=True)
        before = {key: reference for key, reference in known if reference is not None}
        segments = dict(self._segments)
        for reference in before.values():
            number = reference.segment
            if number not in segments:
                raise StoreDamaged(self._reader.path(number), "is referred to, but is not known")
            segments[number] = segments[number].without(reference)
        new = {key: value for key, value in changes.items() if value is not None}
        incoming = sum(map(len, new.values()))
        leaving = set(worth_rewriting(segments, incoming))
        moving = self._residing_in(leaving, all_references) - changes.keys()
        moving_from = zip(moving, references(moving), strict=True)
        before |= {key: reference for key, reference in moving_from if reference is not None}
        for number in [n for n, s in segments.items() if not s.live_count or n in leaving]:
            del segments[number]

        place = self._place
        if place.size and (place.number not in segments or place.number in self._sealed):
            place = Place(place.number + 1, 0)
        full = full_size(live_bytes(self._segments) + incoming)
        writer = SegmentWriter(self._reader, self._directory, place, full)
        after: dict[bytes, Reference | None] = {k: None for k in before if k not in moving}
        try:
            # In the order of their keys, in which they will be scanned.
            payloads = itertools.chain(
                sorted(new.items()),
                self._reader.read_in_order((key, before[key].pack()) for key in sorted(moving)),
            )
            after |= writer.append(payloads)
            writer.finish()
            for number, (size, count) in writer.appended.items():
                segments[number] = segments.get(number, Segment()).with_payloads(size, count)
        except (OSError, StoreError) as error:
            failure = writer.undo(error)
            if failure is error:
                raise
            raise failure from error
        except BaseException:
            writer.take_back()
            raise
        return Staged(after, before, segments, writer)

    def adopt(self, staged: Staged) -> None:
        """Go on from what was staged: it is committed."""
        gone = self._segments.keys() - staged.segments.keys()
        self._segments = dict(staged.segments)
        self._place = staged.writer.place
        self._epoch += 1
        self._leaving += [(self._epoch, number) for number in gone]
        if self._residents is not None:
            for key, reference in staged.before.items():
                self._residents[reference.segment].discard(key)
            for key, moved in staged.references.items():
                if moved is not None:
                    self._residents.setdefault(moved.segment, set()).add(key)
            for number in gone:
                self._residents.pop(number, None)
        self._remove_what_left()

    def changed_segments(self, staged: Staged) -> dict[bytes, bytes | None]:
        """What a commit changes in the table of segments."""
        changed: dict[bytes, bytes | None] = {
            segment_key(number): segment.pack()
            for number, segment in staged.segments.items()
            if self._segments.get(number) != segment
        }
        changed |= {segment_key(n): None for n in self._segments.keys() - staged.segments.keys()}
        return changed

    # Copying

    def seal(self) -> list[Copied]:
        """What to copy of the committed segments; those to link never change from now on."""
        current, size = self._place
        full = full_size(live_bytes(self._segments))
        if size >= max(MIN_SEGMENT_BYTES, full // _LINKED_SHARE):
            self._sealed.add(current)
        return [
            Copied(number, segment.size, number != current or number in self._sealed)
            for number, segment in self._segments.items()
        ]

    def copy(self, copied: Iterable[Copied], directory: Path, progress: Progress) -> None:
        """Put the segments into another directory; they are pinned meanwhile.

        Raises:
            OSError: it cannot be done.
        """
        for number, size, linked in copied:
            source = self._reader.path(number)
            target = directory / source.name
            with progress.growing(target):
                if linked:
                    link_or_copy(source, size, target)
                else:
                    copy_start(source, size, target)

    def close(self) -> None:
        """Remove what nobody reads any more, and close all files."""
        self._remove_what_left()
        self._reader.close()

    # Opening and tidying

    def _files(self) -> dict[int, Path]:
        return {
            int(name[1]): path
            for path in self._directory.iterdir()
            if (name := _FILE_NAME.fullmatch(path.name))
        }

    def _remove_all_but_committed(self) -> None:
        """Remove what a failed commit wrote, and what a made one did not get to remove."""
        for number, path in self._files().items():
            segment = self._segments.get(number)
            if segment is None:
                path.unlink()
            elif path.stat().st_size > segment.size and path.stat().st_nlink == 1:
                os.truncate(path, segment.size)

    def _first_place(self) -> Place:
        if not self._segments:
            return Place(1, 0)
        last = max(self._segments)
        size = self._segments[last].size
        has_other_names = self._reader.path(last).stat().st_nlink > 1
        if has_other_names or size >= full_size(live_bytes(self._segments)):
            return Place(last + 1, 0)
        return Place(last, size)

    def _remove_what_left(self) -> None:
        """Remove the segments that left, but for those that somebody may still read."""
        oldest = min(list(self._pins.values()), default=self._epoch)
        waiting = []
        for epoch, number in self._leaving:
            if epoch > oldest:
                waiting.append((epoch, number))
                continue
            self._reader.forget(number)
            self._sealed.discard(number)
            try:
                self._reader.path(number).unlink(missing_ok=True)
            except OSError as error:
                _log.warning("cannot remove %s: %s", self._reader.path(number), error)
        self._leaving = waiting

    def _residing_in(
        self,
        numbers: set[int],
        all_references: Callable[[], Iterator[tuple[bytes, Reference]]],
    ) -> set[bytes]:
        """The keys of the live payloads in segments."""
        if not numbers:
            return set()
        if self._residents is None:
            # Only now: while the oldest go first, nothing ever has to move.
            self._residents = {}
            for key, reference in all_references():
                self._residents.setdefault(reference.segment, set()).add(key)
        return set().union(*(self._residents.get(number, ()) for number in numbers))
