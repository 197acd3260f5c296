"""What the overlay has beyond the contract: the store below stays as it is."""

from __future__ import annotations

from relive.consumers import MemoryStore, OverlayStore
from relive.core.tail import Table


def test_it_starts_from_the_store_below_and_leaves_it_alone() -> None:
    below = MemoryStore()
    below.commit({Table.ROWS: {b"a": b"1", b"b": b"2"}})
    over = OverlayStore(below)
    over.commit({Table.ROWS: {b"a": None, b"b": b"3", b"c": b"4"}})
    assert dict(over.scan(Table.ROWS, b"", b"z")) == {b"b": b"3", b"c": b"4"}
    assert over.get(Table.ROWS, b"a") is None
    assert dict(below.scan(Table.ROWS, b"", b"z")) == {b"a": b"1", b"b": b"2"}
