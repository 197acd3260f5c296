"""When snapshots are taken, and that nothing waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.consumers import LmdbStore, Materializer, SnapshotOptions, Snapshots, Snapshotter
from relive.consumers.committed import Committed
from relive.consumers.manifest import Manifest
from relive.consumers.snapshot_writer import STEPS
from relive.consumers.snapshotter import is_due
from relive.errors import BufferClosed, SnapshotError, StoreError
from relive.log.memory import MemoryLog

Add = Callable[[int], None]
PATIENCE_S = 30.0


def wait_until(condition: Callable[[], object]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in time")


def manifest(events: int, log_bytes: int, written_bytes: int) -> Manifest:
    state = Committed("file:1", 1, {0: events}, "", {}, log_bytes)
    return Manifest("lmdb", state, {}, "", "", written_bytes, ())


# When


def test_the_first_is_due_after_the_interval() -> None:
    assert not is_due(99, 10**9, None, 100)
    assert is_due(100, 0, None, 100)


@pytest.mark.parametrize(
    ("events", "log_bytes", "due"),
    [(299, 9_000, False), (300, 5_999, False), (300, 6_000, True), (10_000, 5_999, False)],
)
def test_the_next_is_due_after_the_interval_and_as_many_bytes_as_the_last_wrote(
    events: int, log_bytes: int, due: bool
) -> None:
    last = manifest(events=200, log_bytes=1_000, written_bytes=5_000)
    assert is_due(events, log_bytes, last, 100) is due


def test_one_that_wrote_nothing_makes_only_the_interval_count() -> None:
    assert is_due(300, 1_000, manifest(200, 1_000, written_bytes=0), 100)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 50_000)), max_size=60))
def test_all_but_the_last_wrote_no_more_than_the_log(growth: list[tuple[int, int]]) -> None:
    """Whatever sizes the snapshots have: each waits for the log to make up for the one before."""
    last, events, log_bytes, written = None, 0, 0, 0
    for count, size in growth:
        events, log_bytes = events + count, log_bytes + 100 * count
        if is_due(events, log_bytes, last, 50):
            assert written <= log_bytes
            written += size
            last = manifest(events, log_bytes, size)


# Beside writes and reads


class Held:
    """Stops the snapshot's writer at a step until it is let go."""

    def __init__(self, at: str) -> None:
        self._at = at
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, step: str) -> None:
        if step == self._at:
            self.reached.set()
            assert self.go_on.wait(PATIENCE_S)


@pytest.fixture
def make(log: MemoryLog, tmp_path: Path) -> Iterator[Callable[..., Snapshotter]]:
    """Makes the one snapshotter, of a materializer of the log."""
    closing: list[Any] = []

    def make(step: Callable[[str], None] = lambda name: None, **options: Any) -> Snapshotter:
        store = LmdbStore(tmp_path / "state")
        materializer = Materializer(log, store)
        chosen = SnapshotOptions(**{"directory": tmp_path / "snapshots", **options})
        made = Snapshotter(materializer, store, log, "lmdb", chosen, step)
        closing[:] = [made, materializer]
        return made

    yield make
    for each in closing:
        each.close()


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots")


@pytest.mark.parametrize("step", STEPS)
def test_folding_committing_and_reading_go_on_while_a_snapshot_is_held_at_any_step(
    make: Callable[..., Snapshotter], log: MemoryLog, add: Add, step: str
) -> None:
    held = Held(step)
    snapshotter = make(held)
    materializer = snapshotter._materializer
    add(20)
    materializer.catch_up()
    taken: list[Any] = []
    taking = threading.Thread(target=lambda: taken.append(snapshotter.take()))
    taking.start()
    assert held.reached.wait(PATIENCE_S)

    read = threading.Event()

    def read_on() -> None:
        wait_until(lambda: all(materializer.row(f"x{n}") for n in range(40)))
        read.set()

    reading = threading.Thread(target=read_on)
    reading.start()
    for _ in range(4):
        add(5)
        materializer.catch_up()
        materializer.commit()
    assert materializer.positions() == {0: 40}
    assert read.wait(PATIENCE_S)
    assert taking.is_alive()
    held.go_on.set()
    for thread in (taking, reading):
        thread.join(PATIENCE_S)
    assert taken[0].positions in ({0: 20}, {0: 40})


def test_they_are_taken_by_themselves_as_the_log_grows(
    make: Callable[..., Snapshotter], snapshots: Snapshots, log: MemoryLog, add: Add
) -> None:
    snapshotter = make(interval=10)
    snapshotter._materializer.start()
    snapshotter.start()
    add(9)
    wait_until(lambda: snapshotter._materializer.positions() == {0: 9})
    assert snapshots.found() == []
    add(1)
    wait_until(snapshots.found)
    (first,) = snapshots.readable(log.identity())
    assert first.positions == {0: 10}
    # The next one waits for as many bytes as this one wrote.
    assert first.manifest.written_bytes > 10_000
    add(20)
    wait_until(lambda: snapshotter._materializer.positions() == {0: 30})
    assert not is_due(30, snapshotter._materializer.log_bytes(), first.manifest, 10)
    add(30 * first.manifest.written_bytes // snapshotter._materializer.log_bytes())
    wait_until(lambda: len(snapshots.found()) == 2)


def test_what_counts_is_what_is_on_disk_not_when_the_process_began(
    make: Callable[..., Snapshotter], snapshots: Snapshots, log: MemoryLog, add: Add
) -> None:
    snapshotter = make(interval=10)
    add(10)
    snapshotter._materializer.catch_up()
    snapshotter.take()
    size = snapshotter._materializer.log_bytes()
    snapshotter.close()
    snapshotter._materializer.close()
    again = make(interval=10)
    assert again._materializer.log_bytes() == size
    again.start()
    pause = threading.Event()
    pause.wait(0.5)
    assert len(snapshots.found()) == 1


def test_a_state_that_has_a_snapshot_is_not_written_again(
    make: Callable[..., Snapshotter], add: Add
) -> None:
    steps: list[str] = []
    snapshotter = make(steps.append)
    add(5)
    snapshotter._materializer.catch_up()
    first = snapshotter.take()
    assert tuple(steps) == STEPS
    assert snapshotter.take() == first
    assert tuple(steps) == STEPS


def test_a_failure_is_said_and_tried_again(
    make: Callable[..., Snapshotter],
    snapshots: Snapshots,
    add: Add,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relive.consumers.snapshotter._RETRY_S", (0.01, 0.02))
    failures = [StoreError("out of reach"), OSError(28, "No space left on device")]

    def fail(step: str) -> None:
        if step == "copy" and failures:
            raise failures.pop(0)

    snapshotter = make(fail, interval=5)
    snapshotter._materializer.start()
    snapshotter.start()
    add(5)
    wait_until(snapshots.found)
    assert "no snapshot, trying again in 0 s: out of reach" in caplog.text
    assert "No space left on device" in caplog.text


def test_closing_gives_up_what_is_being_written_and_leaves_nothing_of_it(
    make: Callable[..., Snapshotter], snapshots: Snapshots, add: Add
) -> None:
    held = Held("copy")
    snapshotter = make(held)
    add(5)
    snapshotter._materializer.catch_up()
    refused: list[BaseException] = []

    def take() -> None:
        try:
            snapshotter.take()
        except BufferClosed as error:
            refused.append(error)

    taking = threading.Thread(target=take)
    taking.start()
    assert held.reached.wait(PATIENCE_S)
    closing = threading.Thread(target=snapshotter.close)
    closing.start()
    wait_until(snapshotter._closing.is_set)
    assert closing.is_alive()  # the store may be closed only when nobody copies it
    held.go_on.set()
    for thread in (taking, closing):
        thread.join(PATIENCE_S)
    assert len(refused) == 1
    assert [path.name for path in snapshots.directory.iterdir()] == ["lock"]
    with pytest.raises(BufferClosed):
        snapshotter.take()


def test_taking_two_at_once_waits_no_longer_than_it_is_told(
    make: Callable[..., Snapshotter], add: Add
) -> None:
    held = Held("copy")
    snapshotter = make(held)
    add(5)
    snapshotter._materializer.catch_up()
    taking = threading.Thread(target=snapshotter.take)
    taking.start()
    assert held.reached.wait(PATIENCE_S)
    with pytest.raises(SnapshotError, match=r"for 0\.05 s"):
        snapshotter.take(timeout_s=0.05)
    held.go_on.set()
    taking.join(PATIENCE_S)


# Retention


def test_the_log_keeps_what_the_oldest_snapshot_needs(
    make: Callable[..., Snapshotter], snapshots: Snapshots, log: MemoryLog, add: Add
) -> None:
    snapshotter = make(keep=2, log_retention_events=5)
    for expected in (0, 10, 10, 20, 30):
        add(10)
        snapshotter._materializer.catch_up()
        snapshotter.take()
        oldest = snapshots.readable(log.identity())[-1]
        assert log.bounds(0).first <= oldest.positions[0]
        del expected
    assert log.bounds(0).first == 40
    assert [s.positions[0] for s in snapshots.readable(log.identity())] == [50, 40]


def test_nothing_is_removed_unless_it_is_asked_for(
    make: Callable[..., Snapshotter], log: MemoryLog, add: Add
) -> None:
    snapshotter = make(keep=1)
    for _ in range(3):
        add(10)
        snapshotter._materializer.catch_up()
        snapshotter.take()
    assert log.bounds(0).first == 0


def test_the_last_events_stay_though_no_snapshot_needs_them(
    make: Callable[..., Snapshotter], log: MemoryLog, add: Add
) -> None:
    snapshotter = make(keep=1, log_retention_events=25)
    add(20)
    snapshotter._materializer.catch_up()
    snapshotter.take()
    assert log.bounds(0).first == 0
    add(20)
    snapshotter._materializer.catch_up()
    snapshotter.take()
    assert log.bounds(0).first == 15


def test_a_foreign_snapshot_says_nothing_of_this_log(
    make: Callable[..., Snapshotter], snapshots: Snapshots, log: MemoryLog, add: Add
) -> None:
    snapshotter = make(keep=1, log_retention_events=0)
    add(10)
    snapshotter._materializer.catch_up()
    taken = snapshotter.take()
    assert log.bounds(0).first == 10
    state = replace(taken.manifest.state, log="memory:another", positions={0: 3})
    foreign = snapshots.directory / f"{3:020d}-foreign"
    foreign.mkdir()
    (foreign / "manifest.json").write_bytes(replace(taken.manifest, state=state).to_json())
    add(10)
    snapshotter._materializer.catch_up()
    snapshotter.take()
    assert log.bounds(0).first == 20
