from hypothesis import given
from hypothesis import strategies as st

from relive.core.recent_ids import RecentIds, unpack_ids


def ident(number: int) -> bytes:
    return number.to_bytes(16, "big")


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 10))
def test_the_window_holds_the_last_ids(numbers: list[int], window: int) -> None:
    recent = RecentIds(window=window)
    added: list[bytes] = []
    for number in numbers:
        if ident(number) in recent:
            continue
        recent.add([ident(number)])
        added.append(ident(number))
        last = added[-window:]
        assert all(i in recent for i in last)
        assert not any(ident(n) in recent for n in range(31) if ident(n) not in last)
        assert (recent.start, recent.end) == (len(added) - len(last), len(added))
        assert unpack_ids(recent.packed(recent.start, recent.end)) == last
        # And what is restored from the ids is the same.
        restored = RecentIds(recent.end, last, window=window)
        assert restored.digest == recent.digest
        assert restored.start == recent.start


@given(st.lists(st.integers(0, 12), max_size=9), st.integers(1, 10))
def test_ids_added_together_are_as_ids_added_one_by_one(sizes: list[int], window: int) -> None:
    together, alone = RecentIds(window=window), RecentIds(window=window)
    for size in sizes:
        ids = [ident(alone.end + number) for number in range(size)]
        assert together.has_none_of(ids)
        together.add(ids)
        for each in ids:
            alone.add([each])
        assert not ids or not together.has_none_of(ids[-1:])
        assert (together.start, together.end, together.digest) == (
            alone.start,
            alone.end,
            alone.digest,
        )
        assert together.packed(together.start, together.end) == alone.packed(alone.start, alone.end)


@given(st.integers(0, 20), st.data())
def test_packing_takes_the_numbered_ids(count: int, data: st.DataObject) -> None:
    recent = RecentIds(window=8)
    for number in range(count):
        recent.add([ident(number)])
    start = data.draw(st.integers(recent.start, recent.end))
    stop = data.draw(st.integers(start, recent.end))
    assert unpack_ids(recent.packed(start, stop)) == [ident(n) for n in range(start, stop)]


def test_the_digest_follows_what_is_in_the_window() -> None:
    a, b = RecentIds(window=2), RecentIds(window=2)
    for number in (1, 2, 3):
        a.add([ident(number)])
    for number in (9, 2, 3):
        b.add([ident(number)])
    assert a.digest == b.digest
    b.add([ident(4)])
    assert a.digest != b.digest
