"""The index that follows the state: one thread writes it, any thread reads its view.

It starts empty or from a base, the rows of a published index. What comes after lies in chunks in
memory; a model puts their rows in lists, many at once and beside the writer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from relive.core.embedding import Embeddings, EmbeddingSpace
from relive.index_service import segments
from relive.index_service.lists import Lists
from relive.index_service.scan import BoolArray, Float32Array, IndexArray
from relive.index_service.segments import Chunk, RowKey, Segment
from relive.index_service.view import View

# A chunk whose live share falls below this is copied together.
_SPARSE = 0.5

# So many rows are put in lists at once: scanning as many takes as long as looking into lists does.
LIST_ROWS = 1_024


@dataclass(frozen=True, slots=True)
class Base:
    """The rows that an index starts with.

    Attributes:
        chunk: full; its rows ordered by partition, then position.
        norm: the greatest length of a row.
        lists: of all of them; None for few.
        directory: of the published index that they are; None for rows in memory.
    """

    chunk: Chunk
    norm: float
    lists: Lists | None
    directory: Path | None = None

    @property
    def count(self) -> int:
        """How many."""
        return len(self.chunk.positions)

    def find(self, partition: int, positions: IndexArray) -> IndexArray:
        """Which rows have some keys: int64, -1 for a key that none has."""
        start, stop = np.searchsorted(self.chunk.partitions, [partition, partition + 1])
        mine = self.chunk.positions[start:stop]
        at = np.searchsorted(mine, positions)
        found = at < len(mine)
        found[found] = mine[at[found]] == positions[found]
        rows: IndexArray = np.where(found, at + start, -1)
        return rows


class Step(NamedTuple):
    """What one `apply` did, for an index that is to do the same later.

    Attributes:
        added: keys, and where their rows lie.
        removed: keys.
        positions: that it brought the view to.
    """

    added: Sequence[tuple[RowKey, Chunk, int]]
    removed: Sequence[RowKey]
    positions: Mapping[int, int]


class Unlisted(NamedTuple):
    """Rows that could be put in lists.

    Attributes:
        chunk: where they lie, up to row `stop`.
        lists: that they are to be added to.
    """

    chunk: Chunk
    lists: Lists
    stop: int


class Index:
    """Follows the state and publishes views.

    Args:
        space: of the rows.
        epoch: of the views.
        base: rows to start with, all of them live until `keep` says otherwise.
    """

    def __init__(self, space: EmbeddingSpace, epoch: int = 0, base: Base | None = None) -> None:
        self._base = base
        self._segments: list[Segment] = []
        self._where: dict[RowKey, tuple[int, int]] = {}
        self._size = 0
        self._steps: list[Step] | None = None
        model = None
        if base is not None:
            whole = Segment(base.chunk, 0, base.count, None, base.count, base.norm)
            self._segments.append(whole.with_lists(base.lists))
            self._size = base.count
            model = None if base.lists is None else base.lists.model
        self.view = View(space, epoch=epoch, model=model)
        self._publish({})

    @classmethod
    def copied(cls, view: View) -> Index:
        """A new index, of the next epoch, of the rows that a view sees, close together."""
        index = cls(view.space, view.epoch + 1)
        for segment in (segment for segment in view.segments if segment.size):
            index._append(segment.live_keys(), segment.live_matrix())
        index._publish(view.positions)
        return index

    @property
    def base(self) -> Base | None:
        """What it started with."""
        return self._base

    @property
    def grown(self) -> int:
        """Rows that count and are not the base's."""
        return self._size - (self._segments[0].size if self._base is not None else 0)

    @property
    def gone(self) -> int:
        """Rows of the base that no longer count."""
        return 0 if self._base is None else self._base.count - self._segments[0].size

    @property
    def unfit(self) -> int:
        """Rows that lists would not find."""
        return sum(segment.size for segment in self._segments if segment.refused)

    def keep(self, partition: int, positions: IndexArray) -> BoolArray:
        """Say which rows of a partition count; of the base's, all others are gone.

        Args:
            positions: int64 of shape (n,), rising.

        Returns:
            bool of shape (n,): which of them the base has.
        """
        if self._base is None:
            return np.zeros(len(positions), dtype=bool)
        rows = self._base.find(partition, positions)
        chunk = self._base.chunk
        start, stop = np.searchsorted(chunk.partitions, [partition, partition + 1])
        dead = np.ones(int(stop - start), dtype=bool)
        dead[rows[rows >= 0] - start] = False
        self._remove_at(0, np.flatnonzero(dead) + start)
        return rows >= 0

    def apply(
        self,
        added: Sequence[RowKey],
        rows: Float32Array,
        removed: Sequence[RowKey],
        positions: Mapping[int, int],
    ) -> None:
        """Add rows, remove rows, and publish the view at the positions.

        Args:
            added: new keys.
            rows: their index rows, float32 of shape (len(added), width).
            removed: keys that were added before or are added now.
            positions: what the view includes from now on.
        """
        self._append(added, rows)
        if self._steps is not None:
            places = ((key, *self._where[key]) for key in added)
            where = [(key, self._segments[at].chunk, row) for key, at, row in places]
            self._steps.append(Step(where, removed, positions))
        for at, gone in self._removed_rows(removed).items():
            self._remove_at(at, np.array(gone))
        self._compact()
        self._publish(positions)

    def load(self, partition: int, positions: IndexArray, embeddings: Embeddings) -> None:
        """Add rows of one partition in bulk; the next `apply` publishes them.

        Args:
            partition: of all of them.
            positions: int64 of shape (n,).
            embeddings: of n experiences.
        """
        keys = cast(Iterator[RowKey], zip(repeat(partition), positions.tolist(), strict=False))
        for some, rows in self._rooms(len(positions)):
            self.view.space.fill(rows, embeddings.some(some))
            self._take(list(islice(keys, len(rows))), partition, positions[some])

    # Being succeeded by another index

    def record(self) -> list[Step]:
        """Note from now on, in the list returned, what `apply` does; ends what was noted before."""
        self._steps = []
        return self._steps

    def repeat(self, steps: Sequence[Step]) -> None:
        """Do what another index did since this one's rows were taken from it."""
        if not steps:
            return
        # At once: thousands of small steps keep the interpreter from searches.
        added = [each for step in steps for each in step.added]
        rows = np.empty((len(added), self.view.space.width), dtype=np.float32)
        for at, (_, chunk, row) in enumerate(added):
            rows[at] = chunk.matrix[row]
        removed = [key for step in steps for key in step.removed]
        self.apply([key for key, _, _ in added], rows, removed, steps[-1].positions)

    # Lists

    def unlisted(self) -> Unlisted | None:
        """Rows that are not in lists and that are enough to be put there; None without a model."""
        model = self.view.model
        if model is None:
            return None
        for segment in self._segments:
            done = max(segment.listed, segment.refused)
            full = segment.stop == segments.CHUNK_ROWS and done < segment.stop
            if segment.size and (full or segment.stop - done >= LIST_ROWS):
                return Unlisted(segment.chunk, segment.lists or model.no_rows(), segment.stop)
        return None

    def adopt(self, chunk: Chunk, lists: Lists) -> None:
        """Put lists of a chunk's rows in service; nothing where the chunk is no longer used."""
        if self.view.model is lists.model:
            self._change(chunk, lambda segment: segment.with_lists(lists))

    def refuse(self, chunk: Chunk, lists: Lists) -> None:
        """Have a chunk's rows scanned: lists of its first rows were tried, and miss too many."""
        tried = lists.count
        self._change(chunk, lambda s: replace(s.with_lists(None), refused=tried))

    def _change(self, chunk: Chunk, changed: Callable[[Segment], Segment]) -> None:
        for at, segment in enumerate(self._segments):
            if segment.chunk is chunk:
                self._segments[at] = changed(segment)
                self._publish(self.view.positions)

    # Rows

    def _publish(self, positions: Mapping[int, int]) -> None:
        self.view = replace(
            self.view,
            segments=tuple(self._segments),
            positions=dict(positions),
            size=self._size,
        )

    def _append(self, keys: Sequence[RowKey], rows: Float32Array) -> None:
        for some, room in self._rooms(len(keys)):
            room[:] = rows[some]
            partitions, positions = zip(*keys[some], strict=True)
            self._take(keys[some], partitions, positions)

    def _rooms(self, count: int) -> Iterator[tuple[slice, Float32Array]]:
        """Which rows of so many go where next: into the last chunk, a new one if that is full."""
        done = 0
        while done < count:
            last = self._segments[-1] if self._segments else None
            if last is None or last.stop >= segments.CHUNK_ROWS or self._is_base(last):
                last = Segment(Chunk.empty(self.view.space.width), 0, 0, None, 0, 0.0)
                self._segments.append(last)
            room = min(segments.CHUNK_ROWS - last.stop, count - done)
            yield slice(done, done + room), last.chunk.matrix[last.stop : last.stop + room]
            done += room

    def _take(
        self, keys: Sequence[RowKey], partitions: npt.ArrayLike, positions: npt.ArrayLike
    ) -> None:
        """Count the rows that were put into the last chunk."""
        segment = self._segments[-1]
        chunk, start, stop = segment.chunk, segment.stop, segment.stop + len(keys)
        rows = chunk.matrix[start:stop]
        chunk.partitions[start:stop] = partitions
        chunk.positions[start:stop] = positions
        last = len(self._segments) - 1
        self._where.update(zip(keys, zip(repeat(last), range(start, stop)), strict=False))
        norm = math.sqrt(float(np.einsum("ij,ij->i", rows, rows).max()))
        self._segments[-1] = segment.extended(stop, norm)
        self._size += len(keys)

    def _removed_rows(self, removed: Sequence[RowKey]) -> dict[int, list[int]]:
        by_segment: dict[int, list[int]] = {}
        in_base: dict[int, list[int]] = {}
        for key in removed:
            if key in self._where:
                at, row = self._where.pop(key)
                by_segment.setdefault(at, []).append(row)
            else:
                in_base.setdefault(key.partition, []).append(key.position)
        for partition, positions in in_base.items():
            assert self._base is not None
            rows = self._base.find(partition, np.array(positions))
            assert (rows >= 0).all()
            by_segment.setdefault(0, []).extend(rows.tolist())
        return by_segment

    def _remove_at(self, at: int, rows: IndexArray) -> None:
        if len(rows):
            self._segments[at] = self._segments[at].without(rows)
            self._size -= len(rows)

    def _is_base(self, segment: Segment) -> bool:
        return self._base is not None and segment.chunk is self._base.chunk

    def _compact(self) -> None:
        """Copy together what is left of sparse chunks, and forget empty ones."""
        first = 0 if self._base is None else 1
        full = self._segments[first:-1]
        if all(segment.size >= _SPARSE * (segment.stop - segment.start) > 0 for segment in full):
            return
        # What an earlier compaction left half filled is taken along, or segments would pile up.
        kept = [s for s in full if s.size >= _SPARSE * segments.CHUNK_ROWS]
        sparse = [s for s in full if s.size < _SPARSE * segments.CHUNK_ROWS]
        rebuilt = Index(self.view.space)
        for segment in (s for s in sparse if s.size):
            rebuilt._append(segment.live_keys(), segment.live_matrix())
        self._segments = self._segments[:first] + kept + rebuilt._segments + self._segments[-1:]
        self._where = {
            key: (at, row)
            for at, segment in enumerate(self._segments[first:], first)
            for key, row in zip(segment.live_keys(), segment.live_rows().tolist(), strict=True)
        }
