"""The log is the truth: whether a state is what the log says, for tests of recovery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from relive.consumers import Materializer, MemoryStore
from relive.core.results import BufferStats
from relive.log import EventLog, open_log

REPLAY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """The state that a log folds to.

    Attributes:
        digest: equal for equal states.
        positions: everything before these was folded.
        size: live experiences.
        quarantined: records that were set aside.
    """

    digest: str
    positions: dict[int, int]
    size: int
    quarantined: int


def replayed(log: str | EventLog, timeout_s: float = REPLAY_TIMEOUT_S) -> Replayed:
    """Fold a log from its beginning to its present end, in memory.

    Args:
        log: a log URL, or an open log, which stays the caller's.
        timeout_s: of the whole replay.

    Raises:
        NotCaughtUp: it took longer.
        LogGap: the beginning of the log was removed.
        InvalidConfig, LogMissing, LogUnavailable: see `relive.log.open_log`.
    """
    with _opened(log) as event_log:
        materializer = Materializer(event_log, MemoryStore())
        try:
            materializer.catch_up(timeout_s=timeout_s)
            with materializer.locked() as states:
                return Replayed(
                    materializer.digest(),
                    materializer.positions(),
                    sum(state.counters.size for state in states),
                    sum(state.counters.quarantined for state in states),
                )
        finally:
            materializer.close()


def assert_replay_equals(
    log: str | EventLog, expected: str | BufferStats, timeout_s: float = REPLAY_TIMEOUT_S
) -> Replayed:
    """Assert that a replay of the log from its beginning gives the expected state.

    Args:
        log: as for `replayed`. Nothing may write to it meanwhile.
        expected: a digest, or `stats()` of a buffer or client.
        timeout_s: of the whole replay.

    Returns:
        the state of the replay.

    Raises:
        AssertionError: the states differ; says at which positions each is.
        as `replayed`.
    """
    found = replayed(log, timeout_s)
    if isinstance(expected, BufferStats):
        assert dict(expected.positions) == found.positions, (
            f"the state is at positions {dict(expected.positions)}, the log ends at "
            f"{found.positions}: flush the buffer, or stop whoever writes, before comparing"
        )
        expected = expected.digest
    assert found.digest == expected, (
        f"the state has digest {expected}, a replay of the log up to {found.positions} has "
        f"{found.digest} ({found.size} experiences)"
    )
    return found


@contextmanager
def _opened(log: str | EventLog) -> Iterator[EventLog]:
    if not isinstance(log, str):
        yield log
        return
    event_log = open_log(log)
    try:
        yield event_log
    finally:
        event_log.close()
