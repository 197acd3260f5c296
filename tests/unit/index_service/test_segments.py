"""What a view sees of a chunk, against a set of row numbers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.checksum import crc32
from relive.errors import IndexDamaged
from relive.index_service.lists import Lists
from relive.index_service.segments import Chunk, RowChecks, RowKey, Segment


class CountedLists(Lists):
    """Stands for lists of so many rows; nothing is looked up in it."""

    def __init__(self, count: int) -> None:
        object.__setattr__(self, "_count", count)

    @property
    def count(self) -> int:
        return int(self._count)  # type: ignore[attr-defined]


def chunk_of(rows: int, width: int = 2) -> Chunk:
    chunk = Chunk.empty(width)
    numbers = np.arange(rows)
    chunk.matrix[:rows] = numbers[:, None]
    chunk.partitions[:rows], chunk.positions[:rows] = numbers % 2, 10 + numbers
    return chunk


def set_bits(segment: Segment) -> set[int]:
    assert segment.bits is not None
    return set(np.flatnonzero(np.unpackbits(segment.bits, bitorder="little")).tolist())


@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1), st.booleans()), max_size=8),
    listed=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_a_segment_sees_what_was_added_and_not_removed(
    steps: list[tuple[int, float, bool]], listed: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    segment, live = Segment(chunk_of(300), 0, 0, None, 0, 0.0), set[int]()
    for more, share, oldest in steps:
        live |= set(range(segment.stop, segment.stop + more))
        segment = segment.extended(segment.stop + more, 1.0)
        if segment.lists is None and segment.stop >= listed:
            segment = segment.with_lists(CountedLists(listed))
        gone = sorted(live)[: int(share * len(live))]
        if not oldest and live:
            gone = random.permutation(sorted(live))[: len(gone)].tolist()
        if gone:
            segment = segment.without(np.array(gone))
            live -= set(gone)
        assert segment.size == len(live)
        assert segment.live_rows().tolist() == sorted(live)
        assert segment.live_matrix()[:, 0].tolist() == sorted(live)
        assert segment.live_keys() == [RowKey(row % 2, 10 + row) for row in sorted(live)]
        rest = segment.unlisted()
        in_lists = segment.listed
        assert rest.live_rows().tolist() == sorted(row for row in live if row >= in_lists)
        assert rest.size == len(rest.live_rows())
        if in_lists:
            wanted = {row for row in live if row < in_lists}
            assert (set(range(in_lists)) if segment.bits is None else set_bits(segment)) == wanted


def test_rows_of_a_file_are_compared_when_they_are_first_looked_at() -> None:
    chunk = chunk_of(10)
    crcs = np.array([crc32(row.data.cast("B")) for row in chunk.matrix[:10]], dtype=np.uint32)
    checked = Chunk(
        chunk.matrix[:10].copy(),
        chunk.partitions,
        chunk.positions,
        RowChecks(crcs, np.zeros(10, bool)),
    )
    assert checked.rows(np.array([3, 1]))[:, 0].tolist() == [3.0, 1.0]
    assert checked.span(0, 5)[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    checked.matrix[7, 1] += 1
    assert checked.rows(np.array([8, 6]))[:, 0].tolist() == [8.0, 6.0]
    with pytest.raises(IndexDamaged, match="row 7"):
        checked.rows(np.array([6, 7]))
    with pytest.raises(IndexDamaged, match="row 7"):
        checked.span(5, 10)
    others = np.array([True, True, False, True, True])
    assert checked.span(5, 10, others)[others][:, 0].tolist() == [5.0, 6.0, 8.0, 9.0]


@given(
    removed=st.sets(st.integers(0, 39)),
    allowed=st.sets(st.integers(0, 39)),
    listed=st.integers(0, 40),
)
def test_a_restricted_segment_has_the_rows_that_are_allowed(
    removed: set[int], allowed: set[int], listed: int
) -> None:
    segment = Segment(chunk_of(40), 0, 40, None, 40, 1.0).with_lists(CountedLists(listed))
    segment = segment.without(np.array(sorted(removed), dtype=np.int64))

    def chosen(partitions: Any, positions: Any) -> Any:
        assert partitions.tolist() == [(at - 10) % 2 for at in positions.tolist()]
        return np.array([at - 10 in allowed for at in positions.tolist()], dtype=bool)

    restricted = segment.restricted(chosen)
    assert set(restricted.live_rows().tolist()) == allowed - removed
    assert restricted.size == len(allowed - removed)
    counts = restricted.counts(np.arange(60)[::-1])
    assert set(np.arange(60)[::-1][counts].tolist()) == allowed - removed
    if listed:
        assert set_bits(restricted) == {row for row in allowed - removed if row < listed}
