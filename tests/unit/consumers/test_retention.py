from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.consumers import Snapshots, retention
from relive.consumers.progress import Progress, Stage
from relive.consumers.retention import all_but_the_last, allowed, check_recoverable, trim
from relive.consumers.snapshot_writer import SnapshotWriter
from relive.errors import TrimRefused
from relive.log import Bounds, NewRecord
from relive.log.memory import MemoryLog

POSITIONS = st.integers(0, 30)


@given(st.data())
def test_nothing_goes_that_is_needed_or_not_wanted(data: st.DataObject) -> None:
    bounds = {}
    for partition in range(2):
        begin, end = sorted(data.draw(st.tuples(POSITIONS, POSITIONS)))
        bounds[partition] = Bounds(begin, end)
    each = st.fixed_dictionaries({0: POSITIONS, 1: POSITIONS})
    wanted, needed = data.draw(each), data.draw(st.lists(each, max_size=3))
    first: dict[int, int] = allowed(bounds, wanted, needed)
    for partition, bound in bounds.items():
        stays = first.get(partition, bound.first)
        assert bound.first <= stays <= bound.end
        if partition in first:
            assert stays <= wanted[partition]
            assert all(stays <= position[partition] for position in needed)
        else:
            limits = [wanted[partition], *(position[partition] for position in needed)]
            assert min(limits) <= bound.first or bound.end == bound.first


def test_all_but_the_last_counts_from_the_end() -> None:
    assert all_but_the_last({0: Bounds(5, 30), 1: Bounds(0, 4)}, 10) == {0: 20, 1: -6}


def test_a_log_is_trimmed_up_to_the_least_of_all_that_is_needed(
    log: MemoryLog, add: Callable[[int], None]
) -> None:
    add(30)
    assert trim(log, {0: 30}, [{0: 20}, {0: 12}], {0: 25}) == {0: 12}
    assert trim(log, {0: 30}, [{0: 20}], {0: 15}) == {0: 15}
    assert trim(log, {0: 10}, [{0: 20}], None) == {}
    assert trim(log, {0: 18}, [{0: 20}], None) == {0: 18}
    assert log.bounds(0) == Bounds(18, 30)


class Watched(MemoryLog):
    """Notes how far it was when it was trimmed, and is trimmed by another process too."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress, self.seen = progress, list[Stage]()

    def truncate_before(self, partition: int, position: int) -> None:
        self.seen.append(self.progress.now)
        super().truncate_before(partition, position)
        if len(self.seen) == 2:
            super().truncate_before(partition, position + 3)


def test_it_is_told_how_many_positions_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_LEAST_AT_ONCE", 4)
    progress = Progress()
    log = Watched(progress)
    log.append([NewRecord(0, b"key", b"value")] * 30)
    assert trim(log, {0: 18}, [{0: 30}], None, progress) == {0: 18}
    assert [stage.done for stage in log.seen] == [0, 4, 11, 15]
    assert progress.now == Stage("trimming the log", 18, 18)
    assert log.bounds(0) == Bounds(18, 30)


def test_a_log_is_trimmed_in_a_hundred_pieces_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_LEAST_AT_ONCE", 1)
    progress = Progress()
    log = Watched(progress)
    log.append([NewRecord(0, b"key", b"value")] * 1_000)
    trim(log, {0: 1_000}, [{0: 1_000}], None, progress)
    assert len(log.seen) == 100


def test_without_a_sound_snapshot_nothing_may_go(
    log: MemoryLog, add: Callable[[int], None], folded: Any, backend: Any, tmp_path: Path
) -> None:
    snapshots = Snapshots(tmp_path / "snapshots")
    with pytest.raises(TrimRefused, match=r"there is none\); take one first"):
        check_recoverable(log, snapshots)
    add(10)
    folded.commit()
    snapshot = SnapshotWriter(snapshots, backend).write(folded.store, 3)
    check_recoverable(log, snapshots)
    (snapshot.path / "state" / "store").write_bytes(b"damaged")
    with pytest.raises(TrimRefused, match=f"snapshot {snapshot.path.name}: store has 7 bytes"):
        check_recoverable(log, snapshots)
