"""A durable store, whatever is done to it in whatever order, is a dictionary per table."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from relive.consumers import FileStore, LmdbStore, StateStore, verify_store
from relive.core.tail import Table

# Few keys, so that they are replaced and removed; payloads of very different sizes.
KEYS = st.integers(0, 40).map(lambda number: number.to_bytes(3, "big"))
SIZES = st.sampled_from([0, 1, 300, 6_000, 40_000, 150_000])
VALUES = st.none() | st.binary(max_size=20)
PAYLOADS = st.none() | st.tuples(SIZES, st.integers(0, 255)).map(
    lambda made: bytes([made[1]]) * made[0]
)


class StoreMachine(RuleBasedStateMachine):
    kind: Callable[[Path], StateStore]

    def __init__(self) -> None:
        super().__init__()
        self._root = Path(tempfile.mkdtemp(prefix="relive-store-"))
        self._directory = self._root / "0"
        self._copies = 0
        self._model: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}

    @initialize()
    def open(self) -> None:
        self._store = type(self).kind(self._directory)

    @rule(
        payloads=st.dictionaries(KEYS, PAYLOADS, max_size=12),
        uses=st.dictionaries(KEYS, VALUES, max_size=5),
    )
    def commit(self, payloads: dict[bytes, Any], uses: dict[bytes, Any]) -> None:
        self._store.commit({Table.PAYLOADS: payloads, Table.USES: uses})
        for table, changes in ((Table.PAYLOADS, payloads), (Table.USES, uses)):
            for key, value in changes.items():
                if value is None:
                    self._model[table].pop(key, None)
                else:
                    self._model[table][key] = value

    @rule()
    def reopen(self) -> None:
        self._store.close()
        self.open()

    @rule()
    def go_on_with_a_copy(self) -> None:
        self._copies += 1
        copy = self._root / str(self._copies)
        self._store.copy_to(copy)
        self._store.close()
        self._directory = copy
        self.open()

    @rule()
    def copy_and_go_on(self) -> None:
        self._copies += 1
        copy = self._root / str(self._copies)
        self._store.copy_to(copy)
        store = type(self).kind(copy)
        assert self._contents(store) == self._model
        store.close()

    @rule(start=KEYS, stop=KEYS, table=st.sampled_from([Table.PAYLOADS, Table.USES]))
    def scan(self, start: bytes, stop: bytes, table: Table) -> None:
        inside = [(k, v) for k, v in sorted(self._model[table].items()) if start <= k < stop]
        assert list(self._store.scan(table, start, stop)) == inside

    @invariant()
    def everything_is_there(self) -> None:
        assert self._contents(self._store) == self._model
        for table in (Table.PAYLOADS, Table.USES):
            keys = [*self._model[table], b"not there"]
            values = [self._model[table].get(key) for key in keys]
            assert self._store.get_many(table, keys) == values
            assert [self._store.get(table, key) for key in keys] == values

    @invariant()
    def it_takes_little_more_room(self) -> None:
        use = self._store.disk_use()
        assert use.payloads_live == sum(map(len, self._model[Table.PAYLOADS].values()))
        assert use.payloads <= 1.2 * use.payloads_live + 512 * 1024

    def teardown(self) -> None:
        self._store.close()
        shutil.rmtree(self._root)

    def _contents(self, store: StateStore) -> dict[Table, dict[bytes, bytes]]:
        return {table: dict(store.scan(table, b"", b"\xff" * 9)) for table in Table}


@pytest.mark.parametrize(
    "kind",
    [LmdbStore, lambda directory: FileStore(directory, min_journal_bytes=200)],
    ids=["lmdb", "file"],
)
def test_a_store_is_a_dictionary_per_table(kind: Callable[[Path], StateStore]) -> None:
    machine = type("Machine", (StoreMachine,), {"kind": staticmethod(kind)})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=20))


def test_a_store_that_was_used_for_long_is_found_sound(tmp_path: Path) -> None:
    for kind in (LmdbStore, FileStore):
        directory = tmp_path / kind.__name__
        store = kind(directory)
        for turn in range(30):
            numbers = [(7 * turn + n) % 100 for n in range(10)]
            store.commit(
                {
                    Table.PAYLOADS: {
                        bytes([n]): None if n % 3 == turn % 3 else bytes([n]) * 10_000
                        for n in numbers
                    }
                }
            )
        live = store.disk_use().payloads_live
        store.close()
        verdict = verify_store(directory, timeout_s=60)
        assert verdict.sound, verdict.problem
        assert verdict.payload_bytes == live
