from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.consumers import MemoryStore
from relive.core.tail import Changes, KeyValues, NoState, Table, Tail

KEYS = st.sampled_from([b"\x00", b"\x00\x00", b"a", b"aa", b"ab", b"b", b"\xfe", b"\xfe\xff"])
TABLES = st.sampled_from([Table.ROWS, Table.USES])  # one kept in order, one put in order
WRITES = st.lists(st.tuples(TABLES, KEYS, st.none() | st.binary(max_size=3)), max_size=30)
Model = dict[tuple[Table, bytes], bytes]


def write(tail: Tail, model: Model, writes: list[tuple[Table, bytes, bytes | None]]) -> None:
    for table, key, value in writes:
        if value is None:
            tail.delete(table, key)
            model.pop((table, key), None)
        else:
            tail.put(table, key, value)
            model[table, key] = value


def assert_reads_as(tables: KeyValues, model: Model, start: bytes, stop: bytes) -> None:
    for table in (Table.ROWS, Table.USES, Table.IDS):
        mine = sorted((key, value) for (t, key), value in model.items() if t is table)
        inside = [(key, value) for key, value in mine if start <= key < stop]
        assert list(tables.scan(table, start, stop)) == inside
        keys = [*{key for _, key in model}, start, stop]
        values = [model.get((table, key)) for key in keys]
        assert [tables.get(table, key) for key in keys] == values
        assert tables.get_many(table, keys) == values
        readers = tables.get_later(table, keys)
        assert [None if read is None else read() for read in readers] == values


@given(WRITES, WRITES, WRITES, KEYS, KEYS)
def test_a_tail_reads_as_one_map_of_all_writes(
    below: list[tuple[Table, bytes, bytes | None]],
    first: list[tuple[Table, bytes, bytes | None]],
    second: list[tuple[Table, bytes, bytes | None]],
    start: bytes,
    stop: bytes,
) -> None:
    store, model = MemoryStore(), Model()
    base = Tail(store)
    write(base, model, below)
    store.commit(base.freeze())
    tail = Tail(store)
    write(tail, model, first)
    assert_reads_as(tail, model, start, stop)

    # And again over what is being committed, and then was.
    frozen = tail.freeze()
    assert_reads_as(tail, model, start, stop)
    before = dict(model)
    write(tail, model, second)
    assert_reads_as(tail, model, start, stop)
    store.commit(frozen)
    assert_reads_as(store, before, start, stop)
    assert_reads_as(tail, model, start, stop)
    tail.melt()
    assert_reads_as(tail, model, start, stop)


@given(WRITES, WRITES, WRITES, KEYS, KEYS)
def test_what_could_not_be_committed_is_in_the_next_commit(
    first: list[tuple[Table, bytes, bytes | None]],
    second: list[tuple[Table, bytes, bytes | None]],
    third: list[tuple[Table, bytes, bytes | None]],
    start: bytes,
    stop: bytes,
) -> None:
    store, model = MemoryStore(), Model()
    tail = Tail(store)
    write(tail, model, first)
    tail.freeze()
    write(tail, model, second)
    frozen, then = tail.freeze(), dict(model)
    write(tail, model, third)
    assert_reads_as(tail, model, start, stop)
    store.commit(frozen)
    assert_reads_as(store, then, start, stop)
    tail.melt()
    assert_reads_as(tail, model, start, stop)


@given(WRITES, WRITES, WRITES, st.lists(st.tuples(TABLES, KEYS)), KEYS, KEYS)
def test_reading_ahead_changes_nothing_of_what_is_read(
    below: list[tuple[Table, bytes, bytes | None]],
    first: list[tuple[Table, bytes, bytes | None]],
    second: list[tuple[Table, bytes, bytes | None]],
    ahead: list[tuple[Table, bytes]],
    start: bytes,
    stop: bytes,
) -> None:
    store, model = MemoryStore(), Model()
    base = Tail(store)
    write(base, model, below)
    store.commit(base.freeze())
    tail = Tail(store)

    def read_ahead() -> None:
        for table, key in ahead:
            assert tail.read_ahead(table, [key]) == [model.get((table, key))]
        inside = sorted((k, v) for (t, k), v in model.items() if t is Table.ROWS)
        expected = [(key, value) for key, value in inside if start <= key < stop][:2]
        assert tail.scan_ahead(Table.ROWS, start, stop, 2) == expected

    for writes in (first, second):
        read_ahead()
        write(tail, model, writes)
        assert_reads_as(tail, model, start, stop)
        frozen = tail.freeze()
        assert_reads_as(tail, model, start, stop)
        read_ahead()
        store.commit(frozen)
        tail.melt()
        assert_reads_as(tail, model, start, stop)


@given(WRITES)
def test_the_tables_below_stay_as_they_are(
    writes: list[tuple[Table, bytes, bytes | None]],
) -> None:
    store = MemoryStore()
    store.commit({Table.ROWS: {b"a": b"1", b"\x80": b"2"}})
    write(Tail(store), Model(), writes)
    assert list(store.scan(Table.ROWS, b"", b"\xff")) == [(b"a", b"1"), (b"\x80", b"2")]


@pytest.mark.parametrize("below", [NoState, MemoryStore])
def test_deleting_what_is_not_there_is_no_error(below: Callable[[], KeyValues]) -> None:
    tail = Tail(below())
    tail.delete(Table.ROWS, b"a")
    assert list(tail.scan(Table.ROWS, b"", b"\xff")) == []
    changes: Changes = tail.freeze()
    assert changes[Table.ROWS] == {b"a": None}
