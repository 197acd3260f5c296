"""Each sync and each write in turn fails, or is where the process dies (with `strace -e inject`).

A failure is told with an error that is typed; after reopening, nothing acknowledged is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from tests.faults.place import STORES
from tests.faults.sizes import Size
from tests.faults.tracing import NEVER, SYNCS, WRITES, Call, Injection, Tracer, some
from tests.faults.trial import Trial, make
from tests.faults.worker import Plan

OPERATIONS = 16
CHANGES = (*SYNCS, *WRITES, "openat", "unlink", "unlinkat", "rename", "renameat", "renameat2")


@pytest.fixture(params=STORES)
def trial(request: pytest.FixtureRequest, tmp_path: Path, chance: Random) -> Trial:
    return make(tmp_path, chance.randrange(2**32), store=request.param)


def injection(
    trial: Trial, calls: Sequence[str], what: str, nth: int, all_after: bool = False
) -> Injection:
    """On any of the buffer's files, also those that are not there yet."""
    directory = trial.place.directory
    files = {directory, *(directory / name for name in EXPECTED_FILES)}
    files |= set(directory.rglob("*")) if directory.exists() else set()
    return Injection(tuple(calls), what, nth, all_after, tuple(sorted(files)))


EXPECTED_FILES = (
    "log.sqlite3",
    "log.sqlite3-wal",
    "log.sqlite3-shm",
    "log.lock",
    "state",
    "state/store",
    "state/store.part",
    "state/journal-0000000000",
    "state/journal-0000000000.part",
    "state/data.mdb",
    "state/lock.mdb",
)


def made(trial: Trial, calls: Sequence[str], report: Path) -> list[Call]:
    """The calls of such names that one thread makes in one run."""
    with Tracer(injection(trial, calls, "error=EIO", NEVER), report) as tracer:
        used = trial.use(plan(trial, "untouched"), trace=tracer)
        assert (used.code, used.failures, used.unknown) == (0, (), ())
        return tracer.made()


def renewed(trial: Trial, chance: Random, most_ids: int = 300) -> Trial:
    """Another buffer once one has become large, so that looking at it all stays quick."""
    if len(trial.history.possible) < most_ids:
        return trial
    trial.delete()
    return make(trial.place.directory.parent, chance.randrange(2**32), store=trial.place.store)


def plan(trial: Trial, name: str) -> Plan:
    return Plan(trial.seed, name, OPERATIONS, patient=True, commit_every=10)


LONG = pytest.mark.long
CASES = [
    pytest.param(SYNCS, "EIO", False, id="sync-EIO-once"),
    pytest.param(SYNCS, "EIO", True, id="sync-EIO-from-then-on", marks=LONG),
    pytest.param(WRITES, "EIO", False, id="write-EIO-once"),
    pytest.param(WRITES, "EIO", True, id="write-EIO-from-then-on", marks=LONG),
    pytest.param(WRITES, "ENOSPC", False, id="write-ENOSPC-once", marks=LONG),
    pytest.param(WRITES, "ENOSPC", True, id="write-ENOSPC-from-then-on", marks=LONG),
]


@pytest.mark.parametrize(("calls", "error", "all_after"), CASES)
def test_a_call_that_fails_is_told_and_nothing_acknowledged_is_missing(
    trial: Trial,
    tmp_path: Path,
    calls: tuple[str, ...],
    error: str,
    all_after: bool,
    size: Size,
    chance: Random,
) -> None:
    all_made = made(trial, calls, tmp_path / "seen")
    assert len(all_made) > 10
    failed = told = 0
    # Each in turn where that is the whole of it; the variations are samples.
    wanted = size.failures if (error, all_after) == ("EIO", False) else size.failures // 8 + 1
    for number, call in enumerate(some(all_made, wanted, chance)):
        what = f"error={error}"
        names = calls if all_after else (call.name,)
        failing = injection(trial, names, what, call.nth, all_after)
        with Tracer(failing, tmp_path / "seen") as tracer:
            used = trial.use(plan(trial, f"{number}-"), trace=tracer)
            failed += bool(tracer.injected())  # threads share the calls out anew each time
        assert used.code == 0
        told += bool(used.failures or used.unknown)
        trial.check(trial.look())
        trial = renewed(trial, chance)
    # A sync or a write for a checkpoint may fail without harm: it is made again.
    assert told <= failed
    assert told > 0 or size.name == "sample"
    assert not trial.use(plan(trial, "after")).failures
    trial.check(trial.look(close=True))


@pytest.mark.parametrize(
    "fresh", [pytest.param(True, id="new", marks=LONG), pytest.param(False, id="known")]
)
def test_a_kill_at_a_system_call_loses_nothing(
    trial: Trial, tmp_path: Path, fresh: bool, size: Size, chance: Random
) -> None:
    all_made = made(trial, CHANGES, tmp_path / "seen")
    for number, call in enumerate(some(all_made, size.system_call_kills, chance)):
        if fresh:
            trial.delete()
            trial = make(tmp_path, chance.randrange(2**32), store=trial.place.store)
        dying = injection(trial, (call.name,), "signal=SIGKILL", call.nth)
        with Tracer(dying, tmp_path / "seen") as tracer:
            used = trial.use(plan(trial, f"{number}-"), trace=tracer)
        assert used.was_killed or used.code == 0
        trial.check(trial.look())
    assert not trial.use(plan(trial, "after")).failures
    trial.check(trial.look(close=True))
