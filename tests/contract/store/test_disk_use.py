"""A store takes little more room than what is in it, whatever comes and goes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from relive.consumers import StateStore
from relive.core.tail import Changes, Table

if TYPE_CHECKING:
    from tests.contract.store.conftest import StoreCase

SIZE = 6_000
CAPACITY = 1_000
SLACK = 512 * 1024


def key(number: int) -> bytes:
    return number.to_bytes(10, "big")


def payload(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


def changes(added: range, removed: list[int]) -> Changes:
    payloads: dict[bytes, bytes | None] = {key(n): payload(n) for n in added}
    payloads |= {key(n): None for n in removed}
    rows = {k: None if value is None else value[:90] for k, value in payloads.items()}
    return {Table.ROWS: rows, Table.PAYLOADS: payloads}


def check_use(case: StoreCase, store: StateStore, live: int) -> None:
    use = store.disk_use()
    assert use.payloads_live == live * SIZE
    assert use.payloads <= 1.2 * use.payloads_live + SLACK
    assert use.payloads == sum(path.stat().st_size for path in case.segments().values())


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many bytes were written to files by now, LMDB's own apart."""
    pwrite = os.pwrite
    counted = [0]

    def counting(descriptor: int, data: Any, offset: int) -> int:
        counted[0] += len(data)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", counting)
    return lambda: counted[0]


def test_evicting_the_oldest_takes_no_more_room_and_rewrites_nothing(
    case: StoreCase, written: Callable[[], int]
) -> None:
    """20,000 adds at capacity 1,000."""
    store = case.open()
    for start in range(0, 20_000, 500):
        added = range(start, start + 500)
        store.commit(changes(added, [n - CAPACITY for n in added if n >= CAPACITY]))
        check_use(case, store, min(start + 500, CAPACITY))
    assert written() < 1.1 * 20_000 * SIZE
    assert dict(store.scan(Table.PAYLOADS, b"", b"\xff")) == {
        key(n): payload(n) for n in range(19_000, 20_000)
    }
    # What is not payloads stays small too: 90 bytes a row, 20,000 times over.
    assert store.disk_use().tables < 3_000_000


@pytest.mark.parametrize("batch", [20, 500])
def test_removing_in_any_order_takes_little_more_room(
    case: StoreCase, written: Callable[[], int], batch: int
) -> None:
    store = case.open()
    chance = random.Random(1)
    live: list[int] = []
    end = 0
    while end < 6_000:
        added = range(end, end + batch)
        end += batch
        live += added
        chance.shuffle(live)
        removed = [live.pop() for _ in range(len(live) - CAPACITY)] if len(live) > CAPACITY else []
        store.commit(changes(added, removed))
        check_use(case, store, len(live))
    # A few times what was added, and not more and more.
    assert written() < 5 * end * SIZE
    assert dict(store.scan(Table.PAYLOADS, b"", b"\xff")) == {key(n): payload(n) for n in live}


def test_shrinking_gives_the_room_back(case: StoreCase) -> None:
    store = case.open()
    store.commit(changes(range(3_000), []))
    for step in (2, 4, 8, 16):
        gone = [n for n in range(3_000) if n % (step // 2) == 0 and n % step]
        store.commit(changes(range(0), gone))
        check_use(case, store, len([n for n in range(3_000) if n % step == 0]))
    store.commit(changes(range(0), list(range(3_000))))
    assert store.disk_use().payloads == 0
    assert not case.segments()


def test_what_is_open_and_closed_often_does_not_scatter(case: StoreCase) -> None:
    for turn in range(10):
        store = case.open()
        store.commit(changes(range(turn, turn + 1), []))
        store.close()
    assert len(case.segments()) == 1
    check_use(case, case.open(), 10)
