"""One flipped bit in any file: never silently wrong, never silently empty, never a crash.

The state is rebuilt, from a snapshot or the log, without anybody asking. Where the log itself is
damaged, the buffer is right all the same, or refuses with an error that says what is damaged.
"""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import closing, nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from tests.faults import damage
from tests.faults.checker import Found
from tests.faults.history import History
from tests.faults.place import StoreName
from tests.faults.sizes import Size
from tests.faults.trial import Broken, Trial, make
from tests.faults.worker import Failed, Plan

from relive.log import open_log

# How its last process ended. Killed: the log is partly in the WAL. Trimmed: it was closed, and the
# beginning of the log is only in the state and in snapshots.
End = Literal["closed", "killed", "trimmed"]

# The share of the flips that each kind of file gets, of the state in each store.
SHARES: dict[tuple[str, End], float] = {
    ("log.sqlite3", "closed"): 0.15,
    ("log.sqlite3", "killed"): 0.10,
    ("log.sqlite3-wal", "killed"): 0.15,
    ("state", "closed"): 0.10,
    ("state", "killed"): 0.05,
    ("state", "trimmed"): 0.10,
    ("snapshots", "closed"): 0.05,
    ("the rest", "killed"): 0.05,
}
CASES = [
    pytest.param(kind, end, store, id=f"{kind}-{end}-{store}", marks=marks)
    for kind, end in SHARES
    for store, marks in (("file", ()), ("lmdb", pytest.mark.long))
    if store == "file" or kind == "state"  # of the others, there is nothing special about it
]


@pytest.mark.parametrize(("kind", "end", "store"), CASES)
def test_a_flipped_bit_is_never_silently_wrong(
    tmp_path: Path, kind: str, end: End, store: StoreName, size: Size, chance: Random
) -> None:
    trial = damaged_by_nobody(tmp_path, end, store, chance)
    files = [f for f in damage.files(trial.place.directory) if kind_of(f) == kind]
    outcomes: Counter[str] = Counter()
    for _ in range(round(size.flips * SHARES[kind, end])):
        copy = copied(trial, tmp_path / "copy")
        flip = damage.random_flip(copy.place.directory, chance.choice(files), chance)
        flip.apply(copy.place.directory)
        outcomes[judged(copy, flip, chance)] += 1
        copy.delete()
    print(f"{kind}, {end}, {store}: {dict(outcomes)}")


def damaged_by_nobody(directory: Path, end: End, store: StoreName, chance: Random) -> Trial:
    """A buffer with something in all of its files."""
    retention = 30 if end == "trimmed" else None
    trial = make(directory, chance.randrange(2**32), store=store, log_retention_events=retention)
    trial.use(Plan(trial.seed, "a", 150))
    if end == "killed":
        trial.use(Plan(trial.seed, "b", 60, kill_at=("append.after", 30)))
    trial.check(copied(trial, directory / "copy", keep=trial.history).look())
    shutil.rmtree(directory / "copy")
    with closing(open_log(trial.place.log_url)) if end == "trimmed" else nullcontext() as log:
        assert log is None or log.bounds(0).first > 0
    return trial


def kind_of(file: str) -> str:
    if file.startswith("log.sqlite3"):
        return file.removesuffix("-shm")  # made anew from the WAL
    if file.endswith(("lock", "lock.mdb")):
        return "the rest"
    folder = file.partition("/")[0]
    return folder if folder in ("state", "snapshots") else "the rest"


def copied(trial: Trial, directory: Path, keep: History | None = None) -> Trial:
    """The same buffer at another place, with a history of its own."""
    shutil.copytree(trial.place.directory, directory)
    history = deepcopy(trial.history) if keep is None else keep
    return Trial(replace(trial.place, directory=directory), trial.seed, history)


def judged(trial: Trial, flip: damage.Flip, chance: Random) -> str:
    """What a flip led to.

    Raises:
        Broken: something that it must not.
    """
    try:
        found = trial.look(close=chance.random() < 0.5)
        if isinstance(found, Found):
            trial.check(found)
            if chance.random() < 0.7:
                return "right all the same"
            # What is damaged and was not looked at must not do harm later either.
            used = trial.use(Plan(chance.randrange(2**32), "later", 15, patient=True))
            if used.failures or used.unknown:
                return refused(flip, *used.failures)
            found = trial.look()
        if isinstance(found, Failed):
            return refused(flip, found)
        trial.check(found)
    except Broken as broken:
        raise Broken(f"{flip}: {broken}") from broken
    return "right all the same, also later"


def refused(flip: damage.Flip, *failures: Failed) -> str:
    """Only damage to the log may be refused: it has everything else."""
    if not flip.file.startswith("log.sqlite3"):
        raise Broken(f"{flip} was not made good: {failures}")
    return ", ".join(f"{f.what} refused: {f.error.partition('(')[0]}" for f in failures)
