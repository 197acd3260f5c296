"""No room: who wants to write is told so, nothing is lost, and once there is room all goes on."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from tests.faults.checker import Found
from tests.faults.children import Child
from tests.faults.history import Fate
from tests.faults.place import STORES, StoreName
from tests.faults.sizes import Size
from tests.faults.trial import Trial, make
from tests.faults.worker import Ended, Failed, Message, Plan

from relive.testing.plugin import skip_at_a_desk

KIB, MIB = 1024, 1024 * 1024
# LMDB makes its tables in it, and soon has no room for what is in them.
SMALL_MAP_BYTES = 128 * KIB
# With more room than this any buffer opens.
MOST_TO_OPEN = 400 * KIB
# Of SQLite, of LMDB, and of the system, where files are written as they are.
SAYS_SO = ("database or disk is full", "no room left", "No space left on device")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB: room for the log's WAL twice, and the state."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m,mode=0700", "relive-test", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        skip_at_a_desk(f"no file system can be mounted here: {mounted.stderr}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """A file that leaves only so much room."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - leave_bytes))
    return ballast


class Watcher:
    """Notes what a worker tells, and makes room after some failures."""

    def __init__(self, make_room: Callable[[], object], after: int = 5) -> None:
        self._make_room = make_room
        self._after = after
        self.fates: list[Fate] = []
        self.errors: list[str] = []

    def __call__(self, message: Message) -> None:
        if isinstance(message, Ended):
            self.fates.append(message.fate)
        if isinstance(message, Failed) or (
            isinstance(message, Ended) and message.fate is Fate.UNKNOWN
        ):
            self.errors.append(message.error)
            if len(self.errors) == self._after:
                self._make_room()


def filled(trial: Trial) -> Trial:
    trial.use(Plan(trial.seed, "before", 30))
    return trial


@pytest.mark.parametrize("store", STORES)
def test_a_full_disk_is_reported_and_once_there_is_room_all_goes_on(
    small_disk: Path, store: StoreName, size: Size, chance: Random
) -> None:
    for _ in range(size.full_disks):
        trial = filled(make(small_disk, chance.randrange(2**32), store=store))
        ballast = fill(small_disk, chance.randrange(8 * KIB, 2 * MIB))
        seen = Watcher(ballast.unlink)
        used = trial.use(Plan(trial.seed, "during", 260, patient=True), watch=seen)
        assert used.code == 0
        assert len(seen.errors) >= 5
        others = [e for e in seen.errors if not any(text in e for text in SAYS_SO)]
        assert not others
        assert Fate.UNKNOWN not in seen.fates[-50:], seen.errors
        trial.check(trial.look(close=True))
        trial.delete()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("new", [True, False], ids=["new", "known"])
def test_opening_a_buffer_on_a_full_disk_fails_and_once_there_is_room_it_opens(
    small_disk: Path, store: StoreName, new: bool, size: Size, chance: Random
) -> None:
    """Files that are mapped into memory are the danger: what does not fit there is a SIGBUS."""
    every = range(0, MOST_TO_OPEN, 4 * KIB)
    for leave_bytes in chance.sample(every, min(len(every), size.full_disks + 1)):
        trial = make(small_disk, chance.randrange(2**32), store=store)
        if not new:
            filled(trial)
        ballast = fill(small_disk, leave_bytes)
        found = trial.look()
        assert isinstance(found, Found | Failed)
        trial.use(Plan(trial.seed, "during", 10, patient=True))
        ballast.unlink()
        trial.check(trial.look())
        assert trial.use(Plan(trial.seed, "after", 10)).code == 0
        trial.check(trial.look(close=True))
        trial.delete()


def test_a_full_lmdb_map_is_reported_and_a_larger_one_has_room(
    tmp_path: Path, chance: Random
) -> None:
    trial = make(tmp_path, chance.randrange(2**32))
    seen = Watcher(lambda: None)
    plan = Plan(trial.seed, "small", 250, patient=True, map_bytes=SMALL_MAP_BYTES)
    used = trial.use(plan, watch=seen)
    assert used.code == 0
    assert any("no room left" in error for error in seen.errors)
    trial.check(trial.look())
    assert not trial.use(Plan(trial.seed, "after", 30)).failures
    trial.check(trial.look(close=True))


@pytest.mark.parametrize("store", STORES)
def test_writes_that_are_cut_short_lose_nothing(
    tmp_path: Path, store: StoreName, size: Size, chance: Random
) -> None:
    """By a limit on the size of files: at any byte, where a full disk ends at a page."""
    for _ in range(size.full_disks):
        trial = filled(make(tmp_path, chance.randrange(2**32), store=store))
        most = chance.randrange(100 * KIB, 4 * MIB)
        with_limit = Limited(most)
        seen = Watcher(with_limit.lift)
        plan = Plan(trial.seed, "during", 120, patient=True)
        trial.use(plan, watch=seen, trace=with_limit.set)
        trial.check(trial.look())
        assert trial.use(Plan(trial.seed, "after", 10)).code == 0
        trial.check(trial.look(close=True))
        trial.delete()


class Limited:
    """Limits how large the files of a process may become. (Python ignores SIGXFSZ.)"""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pid = 0

    def set(self, child: Child) -> None:
        self._pid = child.pid
        limits = (self._most_bytes, resource.RLIM_INFINITY)
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, limits)

    def lift(self) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, unlimited)
