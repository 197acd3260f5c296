"""kill -9 at every named point, at random moments, and during recovery: nothing is lost.

What each test expects is in `checker.py`: every acknowledged event is there with its vectors and is
found by a search, nothing refused or removed is, the digest is that of a clean replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from tests.faults import points
from tests.faults.history import Fate
from tests.faults.place import STORES, StoreName
from tests.faults.sizes import Size
from tests.faults.trial import Trial, make
from tests.faults.worker import Plan

if TYPE_CHECKING:
    from relive.testing.broker import Broker

OPERATIONS = 60
# What is left to chance may leave out a point now and then.
MOST_TRIES = 20

NAMED = list(points.names())

# Records that stay in the log where it is trimmed after a snapshot.
RETENTION = 20

# Recovery passes these; a later one of the same process may pass any.
IN_RECOVERY = [
    f"{step}.{moment}"
    for step in ("open log", "open store", "load", "fold", "follow", "save", "commit", "settings")
    for moment in ("before", "after")
]


@pytest.fixture(scope="session")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, int]:
    """How often a worker passes each point when nobody kills it."""
    trial = make(tmp_path_factory.mktemp("whole"), 0, log_retention_events=RETENTION)
    lives = 5  # in one of them something may not happen
    hits = trial.use(Plan(0, operations=lives * OPERATIONS, reopen=True)).hits
    assert hits is not None
    return {point: -(-count // lives) for point, count in hits.items()}


def killed_at(trial: Trial, point: str, most: int, chance: Random) -> None:
    """Let a worker die at a point: at any of its occurrences, or an earlier one if it had fewer."""
    nth = chance.randint(1, max(1, most))
    for _ in range(MOST_TRIES):
        seed = chance.randrange(2**32)
        plan = Plan(seed, f"s{seed}-", OPERATIONS, reopen=True, kill_at=(point, nth))
        if trial.use(plan).was_killed:
            return
        nth = max(1, nth // 2)
    raise AssertionError(f"{point} is never passed")


def test_every_named_point_is_passed(passed: Mapping[str, int]) -> None:
    assert set(NAMED) <= set(passed)


@pytest.mark.parametrize("store", STORES)
def test_kills_at_named_points_one_after_the_other_lose_nothing(
    tmp_path: Path, store: StoreName, size: Size, chance: Random, passed: Mapping[str, int]
) -> None:
    seed = chance.randrange(2**32)
    trial = make(tmp_path, seed, store=store, log_retention_events=RETENTION)
    trial.use(Plan(trial.seed, "first", OPERATIONS // 2))
    for step in points.STEPS:
        point = f"{step}.{chance.choice(('before', 'after'))}"
        if point in passed and not point.startswith("open log"):
            killed_at(trial, point, passed[point] // 3, chance)
            trial.check(trial.look())
    assert trial.use(Plan(trial.seed, "last", OPERATIONS // 2)).code == 0
    trial.check(trial.look(close=True))


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("point", NAMED)
def test_a_kill_at_a_named_point_loses_nothing(
    tmp_path: Path,
    point: str,
    store: StoreName,
    size: Size,
    chance: Random,
    passed: Mapping[str, int],
) -> None:
    for _ in range(size.kills_per_point):
        seed = chance.randrange(2**32)
        trial = make(tmp_path, seed, store=store, log_retention_events=RETENTION)
        if not point.startswith("open log"):  # passed when it is made, and seldom again
            trial.use(Plan(trial.seed, "before", OPERATIONS // 2))
        killed_at(trial, point, passed[point], chance)
        trial.check(trial.look())
        # And it is of use.
        assert trial.use(Plan(trial.seed, "after", OPERATIONS // 3)).code == 0
        trial.check(trial.look(close=True))
        trial.delete()


@pytest.mark.parametrize(
    ("store", "threads"),
    [
        ("lmdb", 1),
        ("file", 4),
        pytest.param("lmdb", 4, marks=pytest.mark.long),
        pytest.param("file", 1, marks=pytest.mark.long),
    ],
)
def test_kills_at_random_moments_one_after_the_other_lose_nothing(
    tmp_path: Path, store: StoreName, threads: int, size: Size, chance: Random
) -> None:
    trial = make(tmp_path, chance.randrange(2**32), store=store, record_retrievals=threads > 1)
    for number in range(size.random_kills):
        seed = chance.randrange(2**32)
        plan = Plan(seed, f"{number}-", 10_000, threads, reopen=threads == 1)
        # Negative: from its start, so that it may be killed while it opens the buffer.
        after_s = chance.uniform(0.0, 0.2) if chance.random() < 0.8 else -chance.uniform(0.0, 0.1)
        assert trial.use(plan, kill_after_s=after_s).was_killed
        trial.check(trial.look(close=chance.random() < 0.3))
        if len(trial.history.possible) > 1_500:  # so that looking at it all stays quick
            trial.delete()
            trial = make(tmp_path, seed, store=store, record_retrievals=threads > 1)


@pytest.mark.parametrize("store", STORES)
def test_kills_during_recovery_lose_nothing(
    tmp_path: Path, store: StoreName, size: Size, chance: Random
) -> None:
    killed = 0
    while killed < size.recovery_kills:
        trial = make(tmp_path, chance.randrange(2**32), store=store)
        # Nothing but the beginning is committed, so that there is much to recover.
        for name, most in (("a", 10), ("b", 10_000)):
            seed = chance.randrange(2**32)
            plan = Plan(seed, name, 80, commit_every=most, kill_at=("append.after", 45))
            assert trial.use(plan).was_killed
        for _ in range(4):
            if chance.random() < 0.7:
                at = chance.choice(IN_RECOVERY), chance.choice((1, 1, 2, chance.randint(3, 40)))
                seen = trial.look(kill_at=at)
            else:
                seen = trial.look(kill_after_s=chance.uniform(0.0, 0.1))
            if seen is None:
                killed += 1
            else:
                trial.check(seen)
        trial.check(trial.look())
        trial.check(trial.look(close=True))
        trial.delete()


# Those that a buffer on Kafka passes.
ON_KAFKA = [
    f"{step}.{moment}"
    for step in ("open log", "append", "fold", "follow", "save", "commit", "load", "close log")
    for moment in ("before", "after")
]


@pytest.mark.broker
def test_kills_of_a_buffer_on_kafka_lose_nothing(
    tmp_path: Path,
    make_kafka_topic: Callable[..., str],
    kafka_broker: Broker,
    size: Size,
    chance: Random,
) -> None:
    trial = None
    for number in range(size.kafka_kills):
        if number % 5 == 0:  # so that looking at it all stays quick
            log = f"kafka://{kafka_broker.bootstrap}/{make_kafka_topic(partitions=2)}"
            trial = make(tmp_path, chance.randrange(2**32), log=log)
            trial.late_arrivals = True  # what a broker was sent it may append after we have looked
        assert trial is not None
        plan = Plan(chance.randrange(2**32), f"{number}-", 10_000)
        if chance.random() < 0.5:
            assert trial.use(plan, kill_after_s=chance.uniform(0.0, 0.5)).was_killed
        else:
            at = chance.choice(ON_KAFKA), chance.choice((1, 2, chance.randint(3, 40)))
            trial.use(replace(plan, kill_at=at, operations=40))
        trial.check(trial.look(close=chance.random() < 0.3))


def test_the_fates_of_operations_are_all_seen(tmp_path: Path) -> None:
    """Or the tests above would prove less than they say."""
    trial = make(tmp_path, 1)
    trial.use(Plan(1, operations=300, kill_at=("append.after", 80)))
    assert all(trial.history.fates[fate] > 0 for fate in Fate)
