"""Which segments are rewritten, and which never are."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from relive.consumers.payload_segments import (
    HEADER_BYTES,
    MIN_SEGMENT_BYTES,
    Reference,
    Segment,
    full_size,
    live_bytes,
    unpack_reference,
    unpack_references,
    unpack_segment,
    worth_rewriting,
)

NUMBERS = st.integers(0, 2**32 - 1)
REFERENCES = st.builds(Reference, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


@given(st.lists(REFERENCES))
def test_references_come_back(references: list[Reference]) -> None:
    packed = [reference.pack() for reference in references]
    assert unpack_references(packed) == references
    assert [unpack_reference(each) for each in packed] == references


@given(*[st.integers(0, 2**63)] * 3)
def test_segments_come_back(size: int, live: int, count: int) -> None:
    segment = Segment(size, live, count)
    assert unpack_segment(segment.pack()) == segment


def segment(size: int, live: int) -> Segment:
    return Segment(HEADER_BYTES + size, live, 1 if live else 0)


def test_little_that_is_dead_is_left_alone() -> None:
    assert worth_rewriting({1: segment(1_000_000, 500_000)}, 2_000_000) == []
    assert worth_rewriting({}, 0) == []


def test_the_deadest_go_first_and_no_more_than_needed() -> None:
    size = 10 * 2**20
    segments = {
        1: segment(size, size // 10 * 9),
        2: segment(size, size // 10),
        3: segment(size, size),
        4: segment(size, 0),
    }
    assert worth_rewriting(segments, 0) == [2]
    assert worth_rewriting(segments | {5: segment(size, size // 10)}, 0) == [2, 5]


@given(
    st.lists(st.tuples(st.integers(0, 2**26), st.floats(0, 1)), max_size=40), st.integers(0, 2**26)
)
def test_after_rewriting_little_is_dead(sizes: list[tuple[int, float]], incoming: int) -> None:
    segments = {n: segment(size, int(size * share)) for n, (size, share) in enumerate(sizes)}
    chosen = worth_rewriting(segments, incoming)
    live = live_bytes(segments) + incoming
    left = [s for n, s in segments.items() if s.live_count and n not in chosen]
    assert sum(s.dead_bytes for s in left) <= live * 3 / 16 + 256 * 1024
    # Of each that is chosen, more would have been dead than may be, had it stayed.
    for stays in chosen[-1:]:
        assert sum(s.dead_bytes for s in [*left, segments[stays]]) > live * 3 / 16 + 256 * 1024


@given(
    st.lists(st.integers(1, 200_000), min_size=1, max_size=8),
    st.integers(1, 3_000),
    st.integers(1, 40),
)
def test_evicting_the_oldest_never_rewrites(sizes: list[int], capacity: int, batch: int) -> None:
    """Whatever the sizes of payloads, as they come and go in the same order."""
    segments: dict[int, Segment] = {0: Segment()}
    kept: OrderedDict[int, Reference] = OrderedDict()
    number = 0
    for payload in range(min(4 * capacity, 2_000)):
        size = sizes[payload % len(sizes)]
        if segments[number].size >= full_size(live_bytes(segments)):
            number += 1
            segments[number] = Segment()
        reference = Reference(number, segments[number].size, size, 0)
        segments[number] = segments[number].with_payload(reference)
        kept[payload] = reference
        if payload % batch == 0:
            while len(kept) > capacity:
                _, gone = kept.popitem(last=False)
                segments[gone.segment] = segments[gone.segment].without(gone)
            segments = {n: s for n, s in segments.items() if s.live_count or n == number}
            if live_bytes(segments) > 4 * max(sizes) + MIN_SEGMENT_BYTES:
                assert worth_rewriting(segments, 0) == []
