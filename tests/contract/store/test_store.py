"""What every state store promises."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.consumers import FileStore, LmdbStore, MemoryStore, OverlayStore, StateStore
from relive.core.tail import Table

Make = Callable[[], StateStore]


@pytest.fixture(params=["memory", "lmdb", "file", "overlay"])
def make(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Make]:
    """Makes stores, each an empty one."""
    made: list[StateStore] = []

    def new() -> StateStore:
        store: StateStore = MemoryStore()
        if request.param == "lmdb":
            store = LmdbStore(tmp_path_factory.mktemp("store"))
        elif request.param == "file":
            store = FileStore(tmp_path_factory.mktemp("store"))
        elif request.param == "overlay":
            store = OverlayStore(store)
        made.append(store)
        return store

    yield new
    for store in made:
        store.close()


@pytest.fixture
def store(make: Make) -> StateStore:
    return make()


def everything(store: StateStore) -> dict[Table, dict[bytes, bytes]]:
    return {table: dict(store.scan(table, b"", b"\xff" * 50)) for table in Table}


def test_a_new_store_is_empty(store: StateStore) -> None:
    assert not any(everything(store).values())
    assert store.get(Table.ROWS, b"a") is None


def test_what_was_committed_is_read(store: StateStore) -> None:
    store.commit({Table.ROWS: {b"a": b"1", b"b": b""}, Table.META: {b"a": b"2"}})
    assert store.get(Table.ROWS, b"a") == b"1"
    assert store.get(Table.ROWS, b"b") == b""
    assert store.get_many(Table.ROWS, [b"b", b"c", b"a"]) == [b"", None, b"1"]
    assert store.get(Table.META, b"a") == b"2"
    assert store.get(Table.META, b"b") is None


@pytest.mark.parametrize("table", [Table.ROWS, Table.PAYLOADS])
def test_what_is_read_later_is_as_it_was(store: StateStore, table: Table) -> None:
    store.commit({table: {b"a": b"1" * 1_000, b"b": b""}})
    a, b, missing = store.get_later(table, [b"a", b"b", b"c"])
    assert a is not None
    assert b is not None
    assert missing is None
    store.commit({table: {b"a": None, b"b": None}})
    store.commit({table: {b"a": b"3" * 1_000}})
    assert (a(), b()) == (b"1" * 1_000, b"")
    assert store.get_later(table, [b"b"]) == [None]
    store.close()
    assert a() == b"1" * 1_000, "whoever found it may look at it after the store is closed"


def test_a_commit_replaces_and_removes(store: StateStore) -> None:
    store.commit({Table.ROWS: {b"a": b"1", b"b": b"2"}})
    store.commit({Table.ROWS: {b"a": None, b"b": b"3", b"never there": None}})
    assert everything(store)[Table.ROWS] == {b"b": b"3"}


def test_a_scan_is_ascending_from_start_to_before_stop(store: StateStore) -> None:
    keys = [b"\x00", b"\x00\x00", b"\x01", b"\x01\xff", b"\x02", b"\x80", b"\xfe\xff"]
    store.commit({Table.ROWS: {key: key + b"!" for key in reversed(keys)}})
    assert list(store.scan(Table.ROWS, b"\x00\x00", b"\x80")) == [(k, k + b"!") for k in keys[1:5]]
    assert list(store.scan(Table.ROWS, b"\x01", b"\x01")) == []
    assert list(store.scan(Table.ROWS, b"\x81", b"\x90")) == []


def test_a_scan_that_is_left_early_hinders_nothing(store: StateStore) -> None:
    store.commit({Table.ROWS: {bytes([n]): b"" for n in range(10)}})
    for _ in range(300):  # more than LMDB has places for readers
        assert next(store.scan(Table.ROWS, b"\x03", b"\xff")) == (b"\x03", b"")
    store.commit({Table.ROWS: {b"\x03": None}})
    assert next(store.scan(Table.ROWS, b"\x03", b"\xff")) == (b"\x04", b"")


def test_any_commits_read_as_one_map(make: Make) -> None:
    keys = st.binary(min_size=1, max_size=2)
    commits = st.lists(st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=8))
    store = make()

    @given(commits, keys, keys)
    def holds(commits: list[dict[bytes, bytes | None]], start: bytes, stop: bytes) -> None:
        model: dict[bytes, bytes] = {}
        store.commit({Table.USES: dict.fromkeys(everything(store)[Table.USES])})
        for changes in commits:
            store.commit({Table.USES: changes})
            for key, value in changes.items():
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
        inside = [(key, value) for key, value in sorted(model.items()) if start <= key < stop]
        assert list(store.scan(Table.USES, start, stop)) == inside
        assert everything(store)[Table.USES] == model

    holds()


def test_stores_share_nothing(make: Make) -> None:
    one, other = make(), make()
    one.commit({Table.ROWS: {b"a": b"1"}})
    assert not any(everything(other).values())


def test_closing_twice_is_safe(store: StateStore) -> None:
    store.close()
    store.close()


def test_large_values_come_back(store: StateStore) -> None:
    value = bytes(range(256)) * 8_000
    store.commit({Table.PAYLOADS: {b"a": value}})
    assert store.get(Table.PAYLOADS, b"a") == value


def test_a_directory_may_be_given_as_it_comes(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "not" / "there yet")
    store.commit({Table.ROWS: {b"a": b"1"}})
    store.close()
    again = LmdbStore(tmp_path / "not" / "there yet")
    assert again.get(Table.ROWS, b"a") == b"1"
    again.close()
