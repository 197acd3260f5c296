"""What opening a state promises: the best sound one is found, and what was wrong is said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relive.consumers import Snapshot, open_store
from relive.errors import (
    ConsumerStopped,
    LogReplaced,
    StateDamaged,
    StateUnrecoverable,
    StoreError,
    StoreIncompatible,
    StoreInUse,
)
from relive.log.memory import MemoryLog


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# What is found where nothing is wrong


def test_a_sound_store_is_gone_on_from(case: Any) -> None:
    case.add(20)
    case.open().close()
    case.add(5)
    opened = case.open()
    assert (opened.recovery.source, opened.recovery.passed_over) == ("store", ())
    assert opened.recovery.events_replayed == 10
    assert sum(opened.recovery.positions.values()) >= 40
    assert opened.digest == case.digest()


def test_without_a_store_the_newest_snapshot_and_the_tail_give_the_same_state(case: Any) -> None:
    *_, newest = case.with_snapshots(2)
    case.add(7)
    shutil.rmtree(case.directory / "machine" / "state")
    opened = case.open()
    assert (opened.recovery.source, opened.recovery.passed_over) == ("snapshot", ())
    assert opened.recovery.positions == newest.positions
    assert opened.recovery.events_replayed == 14
    assert opened.digest == case.digest()


def test_partitions_come_back_together(wide_case: Any) -> None:
    (snapshot,) = wide_case.with_snapshots(1)
    assert len(snapshot.positions) == 3
    wide_case.add(30)
    shutil.rmtree(wide_case.directory / "machine" / "state")
    opened = wide_case.open()
    assert opened.recovery.source == "snapshot"
    assert opened.recovery.events_replayed == 60
    assert opened.digest == wide_case.digest()


def test_without_either_the_log_is_replayed(case: Any) -> None:
    case.add(10)
    opened = case.open()
    assert (opened.recovery.source, opened.recovery.passed_over) == ("log", ())
    assert (opened.recovery.positions, opened.recovery.events_replayed) == ({0: 0}, 20)
    assert opened.digest == case.digest()


def test_a_new_machine_starts_from_the_snapshot_of_another(case: Any) -> None:
    (snapshot,) = case.with_snapshots(1, name="one")
    case.add(5)
    other = case.open("other")
    assert other.recovery.source == "snapshot"
    assert other.recovery.positions == snapshot.positions
    assert other.digest == case.digest()
    # And the first from what the other takes.
    taken = other.snapshotter.take()
    shutil.rmtree(case.directory / "one" / "state")
    assert case.open("one").recovery.positions == taken.positions


def test_a_process_that_does_not_own_the_store_starts_from_a_snapshot_too(case: Any) -> None:
    case.with_snapshots(1)
    case.add(5)
    owner = case.open()
    with pytest.raises(StoreInUse):
        case.open()
    reader = case.open(read_only=True)
    assert (reader.recovery.source, reader.recovery.events_replayed) == ("snapshot", 10)
    assert reader.digest == owner.digest == case.digest()
    assert "state.restoring" not in names(case.directory / "machine")


def test_a_store_in_use_is_not_damaged(memory_case: Any) -> None:
    memory_case.add(1)
    owner = memory_case.open()
    with pytest.raises(StoreInUse):
        memory_case.open()
    assert owner.materializer.stopped is None
    assert "state.damaged" not in names(memory_case.directory / "machine")


# Damage


def test_a_damaged_store_gives_way_to_the_newest_snapshot_and_is_kept(
    case: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, newest = case.with_snapshots(2)
    case.add(5)
    machine = case.directory / "machine"
    case.damage(machine / "state")
    damaged = {file.name: file.read_bytes() for file in (machine / "state").iterdir()}

    opened = case.open()

    assert opened.recovery.source == "snapshot"
    assert opened.recovery.positions == newest.positions
    (reason,) = opened.recovery.passed_over
    assert reason.startswith("the store: ")
    assert f"recovery passed over {reason}" in caplog.text
    assert opened.digest == case.digest()
    kept = {file.name: file.read_bytes() for file in (machine / "state.damaged").iterdir()}
    assert kept.items() >= {k: v for k, v in damaged.items() if v and "lock" not in k}.items()
    # It is whole again.
    opened.close()
    assert case.open().recovery.source == "store"


def test_a_store_of_a_backend_that_there_is_not_is_a_damaged_one(memory_case: Any) -> None:
    """One flipped bit in what says who made it; a backend that there is may be a mistake."""
    memory_case.with_snapshots(1)
    made_by = memory_case.directory / "machine" / "state" / "store"
    made_by.write_bytes(made_by.read_bytes()[:-2] + b"?\n")
    opened = memory_case.open()
    assert opened.recovery.source == "snapshot"
    assert opened.digest == memory_case.digest()


def made_by_damages() -> list[Callable[[Path], object]]:
    """What may become of the file that says who made a store."""

    def flip(path: Path, at: int) -> None:
        said = bytearray(path.read_bytes())
        said[at] ^= 1 << at % 8
        path.write_bytes(said)

    flips = [partial(flip, at=at) for at in (0, 5, 12, 13, 14, 15, 17, -1)]
    return [*flips, Path.unlink, *(partial(os.truncate, length=n) for n in (0, 9, 15, 19))]


@pytest.mark.parametrize("source", ["snapshot", "log"])
def test_a_store_that_does_not_say_who_made_it_gives_way(memory_case: Any, source: str) -> None:
    """To one of the backend that is asked for, in its place; and what was there is kept."""
    memory_case.add(3)
    if source == "snapshot":
        memory_case.with_snapshots(1)
    else:
        memory_case.open().close()
    machine = memory_case.directory / "machine"
    for spoil in made_by_damages():
        spoil(machine / "state" / "store")
        damaged = names(machine / "state")
        opened = memory_case.open()
        assert opened.recovery.source == source
        (reason,) = opened.recovery.passed_over
        assert reason.startswith("the store: ")
        assert opened.digest == memory_case.digest()
        assert names(machine / "state.damaged") == damaged
        opened.close()
        again = memory_case.open()
        assert (again.recovery.source, again.recovery.passed_over) == ("store", ())
        again.close()


def test_a_store_whose_tables_are_gone_is_passed_over_and_said_to_be(memory_case: Any) -> None:
    """Also if nothing could be recovered at first: the first look must not make a new one."""
    (snapshot,) = memory_case.with_snapshots(1)
    memory_case.log.truncate_before(0, snapshot.positions[0])
    machine = memory_case.directory / "machine"
    for path in (machine / "state").iterdir():
        if path.name not in {"store", "owner.lock"} and not path.name.startswith("payloads"):
            path.unlink()
    snapshot.path.rename(memory_case.directory / "elsewhere")
    for _ in range(2):
        with pytest.raises(StateUnrecoverable, match="missing") as error:
            memory_case.open()
        assert len(error.value.passed_over) == 1
    (memory_case.directory / "elsewhere").rename(snapshot.path)
    opened = memory_case.open()
    assert opened.recovery.source == "snapshot"
    assert "missing" in opened.recovery.passed_over[0]


def test_a_store_that_nothing_was_committed_to_is_no_damage(
    memory_case: Any, caplog: pytest.LogCaptureFixture
) -> None:
    memory_case.add(3)
    machine = memory_case.directory / "machine"
    state = machine / "state"
    state.mkdir(parents=True)

    def unfinished() -> None:
        (state / "store").write_bytes(b"relive-state 1 lmdb unfinished\n")
        (state / "data.mdb").write_bytes(b"half")

    makings: list[Callable[[], object]] = [
        lambda: open_store(state, memory_case.backend).close(),
        lambda: (state / "owner.lock").touch(),
        lambda: (state / "store.part").touch(),
        unfinished,
    ]
    for make in makings:
        shutil.rmtree(state)
        state.mkdir()
        make()
        opened = memory_case.open()
        assert (opened.recovery.source, opened.recovery.passed_over) == ("log", ())
        assert opened.digest == memory_case.digest()
        opened.close()
        assert names(machine) == {"state", "state.lock"}
    assert caplog.text == ""


def test_only_the_last_damaged_store_is_kept(memory_case: Any) -> None:
    memory_case.with_snapshots(1)
    machine = memory_case.directory / "machine"
    for turn in range(2):
        (machine / "state" / f"turn-{turn}").touch()
        memory_case.damage(machine / "state")
        memory_case.open().close()
    assert "turn-1" in names(machine / "state.damaged")
    assert "turn-0" not in names(machine / "state.damaged")


def test_damaged_snapshots_give_way_to_older_ones_and_the_log(case: Any) -> None:
    first, second, third = case.with_snapshots(3)
    digest = case.digest()
    state = case.directory / "machine" / "state"

    shutil.rmtree(state)
    case.damage(third.path / "state")
    opened = case.open()
    assert opened.recovery.positions == second.positions
    (reason,) = opened.recovery.passed_over
    assert third.path.name in reason
    assert opened.digest == digest
    opened.close()

    shutil.rmtree(state)
    case.damage(second.path / "state")
    opened = case.open()
    assert opened.recovery.positions == first.positions
    assert len(opened.recovery.passed_over) == 2
    opened.close()

    shutil.rmtree(state)
    (first.path / "manifest.json").unlink()
    opened = case.open()
    assert opened.recovery.source == "log"
    assert len(opened.recovery.passed_over) == 3
    assert opened.digest == digest


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def of_another_log(snapshot: Snapshot) -> None:
    rewrite(snapshot, state=replace(snapshot.manifest.state, log="file:another"))


def of_another_fold(snapshot: Snapshot) -> None:
    rewrite(snapshot, state=replace(snapshot.manifest.state, fold_version=99))


def of_newer_events(snapshot: Snapshot) -> None:
    rewrite(snapshot, schemas={**snapshot.manifest.schemas, "Dreamt.v1.avsc": "00" * 8})


def rewrite(snapshot: Snapshot, **changes: Any) -> None:
    manifest = replace(snapshot.manifest, **changes)
    (snapshot.path / "manifest.json").write_bytes(manifest.to_json())


def half_written(snapshot: Snapshot) -> None:
    (snapshot.path / "manifest.json").unlink()
    largest = max(snapshot.manifest.files, key=lambda file: file.size)
    cut(snapshot.path / "state" / largest.name)


def ahead_of_the_log(snapshot: Snapshot) -> None:
    rewrite(snapshot, state=replace(snapshot.manifest.state, positions={0: 10_000}))


OTHER_WAYS: list[tuple[Callable[[Snapshot], object], str]] = [
    (lambda s: cut(s.path / "state" / s.manifest.files[0].name), "bytes instead of"),
    (lambda s: (s.path / "state" / s.manifest.files[0].name).unlink(), "missing"),
    (lambda s: cut(s.path / "manifest.json"), "manifest cannot be read"),
    (lambda s: rewrite(s, format=2), "format 2, this version reads 1"),
    (lambda s: rewrite(s, store="marble"), "of a marble store, which this version has not"),
    (of_another_log, "of another log, file:another"),
    (of_another_fold, "fold version 99"),
    (of_newer_events, "events differ in Dreamt.v1.avsc"),
    (ahead_of_the_log, "at position 10000 of partition 0, and the log has 0 to"),
    (half_written, "manifest cannot be read"),
]


@pytest.mark.parametrize(("spoil", "complaint"), OTHER_WAYS)
def test_a_snapshot_of_no_use_is_passed_over_with_the_reason(
    memory_case: Any, spoil: Callable[[Snapshot], object], complaint: str
) -> None:
    first, second = memory_case.with_snapshots(2)
    shutil.rmtree(memory_case.directory / "machine" / "state")
    spoil(second)
    opened = memory_case.open()
    assert opened.recovery.positions == first.positions
    (reason,) = opened.recovery.passed_over
    assert complaint in reason
    assert opened.digest == memory_case.digest()


def test_a_snapshot_of_another_backend_is_converted(memory_case: Any) -> None:
    """So that changing it needs no replay, and is possible once the log was trimmed."""
    (snapshot,) = memory_case.with_snapshots(1)
    memory_case.add(5)
    digest = memory_case.digest()
    memory_case.log.truncate_before(0, snapshot.positions[0])
    backend = memory_case.backend
    memory_case.backend = "file" if backend == "lmdb" else "lmdb"
    with pytest.raises(StoreIncompatible, match=f"made with persistence_backend {backend}"):
        memory_case.open()  # it may be a mistake
    assert memory_case.open(read_only=True).digest == digest
    machine = memory_case.directory / "machine"
    shutil.rmtree(machine / "state")
    opened = memory_case.open()
    assert (opened.recovery.source, opened.recovery.passed_over) == ("snapshot", ())
    assert opened.digest == digest
    opened.close()
    assert memory_case.open().recovery.source == "store"
    assert "state.converting" not in names(machine)


def test_a_store_of_another_version_is_passed_over(memory_case: Any) -> None:
    memory_case.with_snapshots(1)
    made_by = memory_case.directory / "machine" / "state" / "store"
    made_by.write_bytes(b"relive-state 99 " + memory_case.backend.encode() + b"\n")
    opened = memory_case.open()
    assert opened.recovery.source == "snapshot"
    assert "has format 99" in opened.recovery.passed_over[0]


def test_a_snapshot_of_a_damaged_store_is_not_trusted_though_its_checksums_are_right(
    memory_case: Any,
) -> None:
    """The store was damaged before the snapshot was taken, so that the copy is damaged too."""
    first, second = memory_case.with_snapshots(2)
    directory = memory_case.state_directory()
    shutil.rmtree(memory_case.directory / "machine" / "state")
    found = directory.recover(memory_case.log)
    found.condemn(StateDamaged("a payload does not match its checksum"))
    assert found.condemned()
    found.store.close()

    opened = memory_case.open()

    assert opened.recovery.positions == first.positions
    store, snapshot = opened.recovery.passed_over
    assert store == "the store: a payload does not match its checksum"
    assert "turned out damaged" in snapshot
    assert second.path.name in snapshot
    opened.close()
    opened = memory_case.open()  # what was said of the former store does not stick to this one
    assert opened.recovery.source == "store"
    # And so on, down to the log.
    opened.found.condemn(StateDamaged("again"))
    opened.die()
    opened = memory_case.open()
    assert opened.recovery.source == "log"
    assert opened.digest == memory_case.digest()


def test_a_store_that_turns_out_damaged_stops_and_recovers_when_it_is_opened_again(
    memory_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_case.with_snapshots(1)
    opened = memory_case.open()

    def damaged(*_: object) -> None:
        raise StateDamaged("a page does not match its checksum")

    with monkeypatch.context() as patched:
        patched.setattr(type(opened.found.store), "get", damaged)
        with pytest.raises(StateDamaged, match="open it again to recover"):
            opened.materializer.row("x1")
    assert isinstance(opened.materializer.stopped, StateDamaged)
    memory_case.add(1)
    with pytest.raises(ConsumerStopped, match="open it again to recover"):
        opened.materializer.catch_up()
    with pytest.raises(ConsumerStopped):
        opened.snapshotter.take()
    with pytest.raises(StoreInUse):  # until it lets go
        memory_case.open()
    opened.close()

    again = memory_case.open()
    assert "a page does not match" in again.recovery.passed_over[0]
    assert again.digest == memory_case.digest()


def test_a_killed_restore_leaves_nothing_that_hinders_the_next(memory_case: Any) -> None:
    (snapshot,) = memory_case.with_snapshots(1)
    machine = memory_case.directory / "machine"
    (machine / "state").rename(machine / "state.restoring")
    (machine / "state.restoring" / "data.mdb").write_bytes(b"half")
    opened = memory_case.open()
    assert opened.recovery.positions == snapshot.positions
    assert "state.restoring" not in names(machine)


# The log


def test_a_store_of_another_log_is_refused_and_left_alone(memory_case: Any) -> None:
    memory_case.with_snapshots(1)
    before = names(memory_case.directory / "machine")
    with pytest.raises(LogReplaced):
        memory_case.state_directory().recover(MemoryLog())
    assert names(memory_case.directory / "machine") == before


def test_a_store_that_the_log_has_left_behind_gives_way_to_a_snapshot(case: Any) -> None:
    case.add(5)
    case.open().close()
    old = case.directory / "old"
    shutil.copytree(case.directory / "machine" / "state", old)
    _, newest = case.with_snapshots(2)
    case.add(3)
    digest = case.digest()
    case.log.truncate_before(0, newest.positions[0])
    shutil.rmtree(case.directory / "machine" / "state")
    shutil.copytree(old, case.directory / "machine" / "state")
    opened = case.open()
    assert opened.recovery.positions == newest.positions
    (reason,) = opened.recovery.passed_over
    assert "the store: it is at position 10 of partition 0" in reason
    assert opened.digest == digest


def test_a_store_ahead_of_the_log_is_passed_over(memory_case: Any, tmp_path: Path) -> None:
    memory_case.add(5)
    memory_case.open().close()
    del memory_case.log._records[0][8:]  # the log was put back from an older backup
    opened = memory_case.open()
    assert opened.recovery.source == "log"
    assert "at position 10 of partition 0, and the log has 0 to 8" in opened.recovery.passed_over[0]
    assert opened.digest == memory_case.digest()


def test_a_trimmed_log_without_state_or_snapshot_says_what_is_missing(case: Any) -> None:
    (snapshot,) = case.with_snapshots(1)
    case.add(1)
    case.log.truncate_before(0, snapshot.positions[0])
    machine = case.directory / "machine"
    case.damage(machine / "state")
    case.damage(snapshot.path / "state")

    with pytest.raises(StateUnrecoverable, match="Put a snapshot at or after 20 back") as error:
        case.open()

    assert (error.value.partition, error.value.position, error.value.first) == (0, 0, 20)
    assert len(error.value.passed_over) == 2
    assert snapshot.path.name in str(error.value)
    assert "state" in names(machine)  # nothing was moved: there was nothing to put in its place
    shutil.rmtree(machine / "state")
    shutil.rmtree(snapshot.path)
    with pytest.raises(StateUnrecoverable, match="there is neither a state nor a snapshot"):
        case.open()
    with pytest.raises(StateUnrecoverable):
        case.open(read_only=True)


def test_what_is_beside_the_state_may_be_damaged_too(memory_case: Any) -> None:
    memory_case.with_snapshots(1)
    machine = memory_case.directory / "machine"
    for said in (b"", b"[1, 2]", b"{", json.dumps({"distrusted": 3}).encode()):
        (machine / "state.condemned").write_bytes(said)
        (machine / "state.origin").write_bytes(said)
        opened = memory_case.open()
        assert opened.recovery.source == "snapshot"
        opened.close()


def test_a_state_directory_is_its_owners_alone(memory_case: Any) -> None:
    before = os.umask(0)
    try:
        memory_case.with_snapshots(1)
        memory_case.damage(memory_case.directory / "machine" / "state")
        memory_case.open()
    finally:
        os.umask(before)
    for path in (memory_case.directory / "machine").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_opening_that_fails_lets_go_of_the_store(memory_case: Any) -> None:
    memory_case.add(1)
    memory_case.open().close()
    for _ in range(2):
        with pytest.raises(StoreError):
            memory_case.state_directory().recover(MemoryLogOf(memory_case.log))


class MemoryLogOf:
    """A log that can tell who it is, and then fails."""

    partitions = 1

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def identity(self) -> str:
        return self._log.identity()

    def bounds(self, partition: int) -> Any:
        raise StoreError("out of reach")
