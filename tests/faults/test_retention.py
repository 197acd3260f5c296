"""kill -9 while the log is trimmed: it is trimmed or not, and the state lacks nothing."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from tests.faults.children import started
from tests.faults.place import STORES, StoreName
from tests.faults.sizes import Size
from tests.faults.tracing import SYNCS, WRITES, Injection, Tracer
from tests.faults.trial import Trial, make
from tests.faults.trimmer import trim
from tests.faults.worker import Plan

from relive.consumers import Snapshots
from relive.log import open_log


def filled(directory: Path, store: StoreName, chance: Random) -> tuple[Trial, int, str]:
    """A buffer, up to where its log may be trimmed, and its digest."""
    trial = make(directory, chance.randrange(2**32), store=store)
    trial.use(Plan(trial.seed, "a", 100))
    found = trial.check(trial.look(close=True))
    with closing(open_log(trial.place.log_url)) as log:
        snapshots = Snapshots(trial.place.directory / "snapshots").readable(log.identity())
    return trial, min(snapshot.positions[0] for snapshot in snapshots), found.digest


def trimmed(
    trial: Trial,
    position: int,
    *,
    kill_at: tuple[str, int] | None = None,
    tracer: Tracer | None = None,
) -> bool:
    """Trim in a process that may be killed; whether it was."""
    with started(trim, trial.place, position, kill_at, go=True) as child:
        if tracer is not None:
            tracer(child)
        child.release()
        said = list(child.messages())
        code = child.end()
    assert code == (0 if said else -signal.SIGKILL)
    return not said


def judge(trial: Trial, position: int, digest: str) -> None:
    with closing(open_log(trial.place.log_url)) as log:
        first = log.bounds(0).first
        assert first in (0, position)
        assert log.read({0: first}, 1)[0].position == first
    found = trial.check(trial.look(close=True))
    assert found.digest == digest
    # What is added from now on is where it belongs.
    assert not trial.use(Plan(trial.seed, "later", 10)).failures
    trial.check(trial.look())


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("moment", ["before", "after", None])
def test_a_kill_around_a_trimming_loses_nothing(
    tmp_path: Path, store: StoreName, moment: str | None, chance: Random
) -> None:
    trial, position, digest = filled(tmp_path, store, chance)
    kill_at = None if moment is None else (f"retention.{moment}", 1)
    assert trimmed(trial, position, kill_at=kill_at) is (kill_at is not None)
    judge(trial, position, digest)


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
def test_a_kill_within_a_trimming_loses_nothing(
    tmp_path: Path, store: StoreName, size: Size, chance: Random
) -> None:
    nth = 0
    was_killed = True
    while was_killed:
        nth += 1 if size.name == "soak" else 3
        trial, position, digest = filled(tmp_path, store, chance)
        directory = trial.place.directory
        files = (*directory.iterdir(), directory / "log.sqlite3-wal")
        what = Injection((*SYNCS, *WRITES), "signal=SIGKILL", nth, False, tuple(files))
        with Tracer(what, tmp_path / "seen") as tracer:
            was_killed = trimmed(trial, position, tracer=tracer)
        judge(trial, position, digest)
        trial.delete()
    assert nth > 6
