"""kill -9 while the log is trimmed: it is trimmed or not, and the state lacks nothing."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from tests.faults.children import started
from tests.faults.place import STORES, StoreName
from tests.faults.tracing import SYNCS, WRITES, Injection, Tracer
from tests.faults.trial import Trial, make
from tests.faults.trimmer import trim
from tests.faults.worker import Plan

from relive.log import open_log


def filled(directory: Path, store: StoreName, chance: Random) -> tuple[Trial, int, str]:
    """A buffer with all of its state committed, where its log ends, and its digest."""
    trial = make(directory, chance.randrange(2**32), store=store)
    trial.use(Plan(trial.seed, "a", 120))
    found = trial.check(trial.look(close=True))
    with closing(open_log(trial.place.log_url)) as log:
        return trial, log.bounds(0).end, found.digest


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
    trial, end, digest = filled(tmp_path, store, chance)
    kill_at = None if moment is None else (f"retention.{moment}", 1)
    assert trimmed(trial, end // 2, kill_at=kill_at) is (kill_at is not None)
    judge(trial, end // 2, digest)


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
def test_a_kill_within_a_trimming_loses_nothing(
    tmp_path: Path, store: StoreName, chance: Random
) -> None:
    killed = nth = 0
    while killed == nth:
        nth += 1
        trial, end, digest = filled(tmp_path, store, chance)
        directory = trial.place.directory
        files = (*directory.iterdir(), directory / "log.sqlite3-wal")
        what = Injection((*SYNCS, *WRITES), "signal=SIGKILL", nth, False, tuple(files))
        with Tracer(what, tmp_path / "seen") as tracer:
            killed += trimmed(trial, end // 2, tracer=tracer)
        judge(trial, end // 2, digest)
        trial.delete()
    assert killed > 2
