"""Snapshots: written whole or not at all, and trusted only if every byte is as it was written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relive.consumers import Backend, Snapshot, Snapshots, open_store
from relive.consumers.committed import last_committed
from relive.consumers.progress import Progress, Stage
from relive.consumers.snapshot_writer import STEPS, SnapshotWriter
from relive.errors import SnapshotError, SnapshotUnsound

Add = Callable[..., None]


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots")


@pytest.fixture
def writer(snapshots: Snapshots, backend: Backend) -> SnapshotWriter:
    return SnapshotWriter(snapshots, backend)


@pytest.fixture
def write(writer: SnapshotWriter, folded: Any, add: Add) -> Callable[..., Snapshot]:
    """Adds experiences, commits, and writes a snapshot."""

    def write(count: int = 10, keep: int = 3, bytes_each: int = 1) -> Snapshot:
        add(count, bytes_each)
        folded.commit()
        return writer.write(folded.store, keep)

    return write


def names(snapshots: Snapshots) -> list[str]:
    return sorted(path.name for path in snapshots.directory.iterdir())


def test_a_snapshot_says_what_it_holds(
    write: Callable[..., Snapshot], folded: Any, backend: Backend
) -> None:
    snapshot = write(10)
    assert snapshot.positions == {0: 10}
    assert snapshot.digest == folded.materializer.digest()
    assert snapshot.manifest.state.counts["size"] == 10
    assert snapshot.manifest.store == backend
    assert "ExperienceRecorded.v1.avsc" in snapshot.manifest.schemas
    assert snapshot.size_bytes == sum(
        file.stat().st_size for file in (snapshot.path / "state").rglob("*") if file.is_file()
    )


def test_a_restored_snapshot_is_the_state_it_was_taken_of(
    write: Callable[..., Snapshot],
    snapshots: Snapshots,
    folded: Any,
    backend: Backend,
    add: Add,
    tmp_path: Path,
) -> None:
    snapshot = write()
    digest = folded.materializer.digest()
    add(5)
    folded.commit()
    (found,) = snapshots.found()
    assert found == snapshot
    snapshots.verify(snapshot)
    snapshots.restore(snapshot, tmp_path / "restored")
    store = open_store(tmp_path / "restored", backend)
    committed = last_committed(store)
    store.close()
    assert committed is not None
    assert committed.digest == digest
    snapshots.verify(snapshot)  # what was done to the restored one has not touched it


def test_it_is_told_how_many_bytes_are_read_again(
    writer: SnapshotWriter, folded: Any, add: Add
) -> None:
    add(20, 100_000)
    folded.commit()
    progress, seen = Progress(), dict[str, Stage]()
    first = writer.write(
        folded.store, 3, step=lambda name: seen.update({name: progress.now}), progress=progress
    )
    assert [seen[step].what for step in ("describe", "sync", "manifest")] == [
        "copying the state",
        "looking at the copy",
        "reading the copy",
    ]
    read = seen["manifest"]
    assert (read.done, read.total, read.unit) == (first.size_bytes, first.size_bytes, "bytes")
    add(20, 1)
    folded.commit()
    second = writer.write(folded.store, 3, progress=progress)
    known = sum(f.size for f in second.manifest.files if f in first.manifest.files and f.shared)
    assert known > 0  # what has its checksum already is not read again
    assert progress.now.done == progress.now.total == second.size_bytes - known


def test_commits_that_come_while_it_is_copied_do_not_mix_in(
    writer: SnapshotWriter, folded: Any, add: Add, snapshots: Snapshots
) -> None:
    add(10)
    folded.commit()

    def commit_more(step: str) -> None:
        add(10)
        folded.commit()

    snapshot = writer.write(folded.store, 3, step=commit_more)
    assert snapshot.positions == {0: 20}  # what was committed when the copy began
    snapshots.verify(snapshot)


def test_what_never_changes_is_linked_and_counts_as_not_written(
    write: Callable[..., Snapshot], snapshots: Snapshots, backend: Backend, tmp_path: Path
) -> None:
    first, second = write(bytes_each=100_000), write(bytes_each=100_000)
    shared = [file for file in second.manifest.files if file.shared]
    assert sum(file.size for file in shared) > 1_500_000  # of twenty payloads
    assert second.manifest.written_bytes == second.size_bytes - sum(f.size for f in shared)
    snapshots.restore(second, tmp_path / "restored")
    for file in second.manifest.files:
        original = second.path / "state" / file.name
        assert original.samefile(tmp_path / "restored" / file.name) is file.shared
    from_before = [first.path / "state" / file.name for file in shared]
    assert any(f.exists() and f.samefile(second.path / "state" / f.name) for f in from_before)


def test_the_newest_stay(write: Callable[..., Snapshot], snapshots: Snapshots) -> None:
    written = [write(keep=2) for _ in range(4)]
    assert snapshots.found() == [written[3], written[2]]
    assert names(snapshots) == [written[2].path.name, written[3].path.name, "lock"]


def test_one_that_cannot_be_read_goes_when_there_are_enough_newer_ones(
    write: Callable[..., Snapshot], snapshots: Snapshots
) -> None:
    """Somebody may still want to look at it, but they must not pile up."""
    unreadable = write()
    (unreadable.path / "manifest.json").unlink()
    for _ in range(2):
        write(keep=3)
        assert unreadable.path.exists()
    write(keep=3)
    assert not unreadable.path.exists()
    assert len(snapshots.found()) == 3


def test_a_state_has_one_snapshot(
    writer: SnapshotWriter, write: Callable[..., Snapshot], folded: Any, snapshots: Snapshots
) -> None:
    first = write()
    assert writer.write(folded.store, 3) == first
    assert len(snapshots.found()) == 1


def test_a_damaged_one_of_the_same_state_is_replaced(
    writer: SnapshotWriter, write: Callable[..., Snapshot], folded: Any, snapshots: Snapshots
) -> None:
    first = write()
    flip(largest(first.path / "state"), 100)
    second = writer.write(folded.store, 3)
    assert second.path == first.path
    snapshots.verify(second)


def test_what_they_take_is_told_while_others_come_and_go(tmp_path: Path) -> None:
    """A folder that goes while it is looked into is no error."""
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            folder = tmp_path / "unfinished-1" / "state"
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(b"1234")
            shutil.rmtree(tmp_path / "unfinished-1")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        told = {Snapshots(tmp_path).own_bytes() for _ in range(3_000)}
    finally:
        done.set()
        thread.join()
    assert told <= {0, 4}


def test_an_empty_state_has_none(writer: SnapshotWriter, folded: Any) -> None:
    with pytest.raises(SnapshotError, match="the state is empty"):
        writer.write(folded.store, 3)


def test_only_its_owner_may_read_it(write: Callable[..., Snapshot]) -> None:
    before = os.umask(0)
    try:
        snapshot = write()
    finally:
        os.umask(before)
    for path in (snapshot.path, *snapshot.path.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert snapshot.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_disk_without_room_is_a_typed_error_and_leaves_nothing(
    writer: SnapshotWriter, write: Callable[..., Snapshot], folded: Any, snapshots: Snapshots
) -> None:
    first = write()

    def fail(step: str) -> None:
        if step == "manifest":
            raise OSError(28, "No space left on device")

    with pytest.raises(SnapshotError, match="No space left"):
        writer.write(folded.store, 3, step=fail)
    assert names(snapshots) == [first.path.name, "lock"]


# Damage


def flip(path: Path, at: int, bit: int = 0) -> None:
    os.chmod(path, 0o600)
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 1)


def largest(state: Path) -> Path:
    return max(state.iterdir(), key=lambda file: file.stat().st_size)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit flipped at the start of a file": (lambda s: flip(largest(s), 0), "checksum"),
    "a bit flipped at the end of a file": (
        lambda s: flip(largest(s), largest(s).stat().st_size - 1, 7),
        "checksum",
    ),
    "a bit flipped in the smallest file": (lambda s: flip(s / "store", 0, 3), "checksum"),
    "a file cut short": (lambda s: cut_short(largest(s)), "bytes instead of"),
    "a file grown longer": (lambda s: grow(largest(s)), "bytes instead of"),
    "a file gone": (lambda s: largest(s).unlink(), "missing"),
    "all files gone": (shutil.rmtree, "missing"),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda name: name.replace(" ", "-"))
def test_damaged_files_are_noticed_before_they_are_used(
    write: Callable[..., Snapshot], snapshots: Snapshots, tmp_path: Path, damage: str
) -> None:
    snapshot = write()
    inflict, complaint = DAMAGE[damage]
    inflict(snapshot.path / "state")
    with pytest.raises(SnapshotUnsound, match=complaint):
        snapshots.verify(snapshot)
    with pytest.raises(SnapshotUnsound, match=complaint):
        snapshots.restore(snapshot, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_manifest_that_cannot_be_read_is_listed_with_the_reason(
    write: Callable[..., Snapshot], snapshots: Snapshots
) -> None:
    first, second, third = write(), write(), write()
    (second.path / "manifest.json").unlink()
    flip(third.path / "manifest.json", 30)
    newest, middle, oldest = snapshots.found()
    assert isinstance(newest, tuple)
    assert "checksum" in str(newest[1]) or "cannot be read" in str(newest[1])
    assert isinstance(middle, tuple)
    assert "No such file" in str(middle[1])
    assert oldest == first


# Writers that die, and writers that meet


CHILD = """
import os, signal, sys
from pathlib import Path
from relive.consumers import Snapshots, open_store
from relive.consumers.snapshot_writer import SnapshotWriter

backend = sys.argv[4]
store = open_store(Path(sys.argv[1]), backend)

def die(step):
    if step == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

SnapshotWriter(Snapshots(Path(sys.argv[2])), backend).write(store, 1, step=die)
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_writer_killed_at_any_step_leaves_what_was_there_or_all_of_its_own(
    write: Callable[..., Snapshot],
    writer: SnapshotWriter,
    snapshots: Snapshots,
    folded: Any,
    add: Add,
    backend: Backend,
    tmp_path: Path,
    step: str,
) -> None:
    first = write(keep=1)
    add(10)
    folded.commit()
    folded.materializer.close()

    arguments = [str(tmp_path / "state"), str(snapshots.directory), step, backend]
    killed = subprocess.run([sys.executable, "-c", CHILD, *arguments], timeout=60, check=False)

    assert killed.returncode == -signal.SIGKILL
    found = snapshots.found()
    published = STEPS.index(step) >= STEPS.index("publish")
    assert len(found) == 1 + published
    assert found[-1] == first
    for snapshot in found:
        assert isinstance(snapshot, Snapshot)
        snapshots.verify(snapshot)
    writer.remove_unfinished()
    assert len(names(snapshots)) == len(found) + 1  # the lock


def test_one_writer_at_a_time(
    writer: SnapshotWriter, write: Callable[..., Snapshot], folded: Any, add: Add
) -> None:
    write()
    add(1)
    folded.commit()
    refused: list[str] = []

    def meet(step: str) -> None:
        if step == "rename":
            writer.remove_unfinished()  # of others; this one is being written
            with pytest.raises(SnapshotError, match="another snapshot is being written") as error:
                writer.write(folded.store, 3)
            refused.append(str(error.value))

    writer.write(folded.store, 3, step=meet)
    assert len(refused) == 1


def test_the_snapshots_of_another_log_are_left_alone(
    write: Callable[..., Snapshot], snapshots: Snapshots
) -> None:
    first = write()
    foreign = snapshots.directory / f"{1:020d}-foreign"
    shutil.copytree(first.path, foreign)
    state = replace(first.manifest.state, log="file:another")
    (foreign / "manifest.json").write_bytes(replace(first.manifest, state=state).to_json())
    for _ in range(3):
        last = write(keep=1)
    assert snapshots.readable(first.manifest.state.log) == [last]
    assert [found.path for found in snapshots.readable("file:another")] == [foreign]
