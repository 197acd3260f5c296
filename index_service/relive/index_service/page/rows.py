"""Rows of a view to look at: some that are spread over it, or the newest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from relive.core.embedding import Float32Array
from relive.index_service.page.plane import chosen, most_points
from relive.index_service.scan import IndexArray
from relive.index_service.segments import RowKey, Segment
from relive.index_service.view import View


class _Rows(NamedTuple):
    """The rows of a view that count, as arrays of one number a row.

    Attributes:
        segments: of the view, those that have rows.
        segment: which of them a row is in.
        row: of the segment's chunk.
        partitions, positions: of its record.
    """

    segments: list[Segment]
    segment: IndexArray
    row: IndexArray
    partitions: IndexArray
    positions: IndexArray

    @staticmethod
    def of(view: View) -> _Rows:
        segments = [segment for segment in view.segments if segment.size]
        rows = [segment.live_rows() for segment in segments]
        none = np.zeros(0, dtype=np.int64)
        both = list(zip(segments, rows, strict=True))
        return _Rows(
            segments,
            np.repeat(np.arange(len(segments)), [len(each) for each in rows]),
            np.concatenate([none, *rows]),
            np.concatenate([none, *(segment.chunk.partitions[row] for segment, row in both)]),
            np.concatenate([none, *(segment.chunk.positions[row] for segment, row in both)]),
        )

    def keys(self, at: IndexArray) -> list[RowKey]:
        return list(map(RowKey, self.partitions[at].tolist(), self.positions[at].tolist()))


def spread(view: View) -> tuple[list[RowKey], Float32Array]:
    """Some rows of a view, spread over all of it: keys, and float32 of shape (n, width)."""
    rows = _Rows.of(view)
    taken = chosen(rows.partitions, rows.positions, most_points(view.space.width))
    found = [np.zeros((0, view.space.width), dtype=np.float32)]
    for at, segment in enumerate(rows.segments):
        found.append(segment.chunk.rows(rows.row[taken[rows.segment[taken] == at]]))
    return rows.keys(taken), np.concatenate(found)


def newest(view: View, most: int) -> list[RowKey]:
    """The keys of a view's newest rows, newest first."""
    rows = _Rows.of(view)
    found = np.arange(len(rows.positions))
    if len(found) > most:
        found = np.argpartition(-rows.positions, most)[:most]
    order = np.lexsort((rows.partitions[found], -rows.positions[found]))
    return rows.keys(found[order])
