"""The state as of a position or a time in the past.

A moment in the past is a position for every partition: everything before them was folded. Times
are the log's: a moment given as a time has what was appended before it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from relive.consumers.materializer import Materializer
from relive.consumers.memory_store import MemoryStore
from relive.consumers.store import StateStore
from relive.core.results import Positions
from relive.errors import InvalidQuery
from relive.log import EventLog, LogPrefix

# A position of a log of one partition, positions of all partitions, or a time; a time without a
# zone is local.
Moment: TypeAlias = int | Positions | datetime

REPLAY_TIMEOUT_S = 24 * 3600.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def positions_at(log: EventLog, moment: Moment) -> dict[int, int]:
    """The positions that a moment stands for.

    Raises:
        InvalidQuery: a partition is missing, or unknown, or the log no longer knows what there
            was at that time.
        LogUnavailable: see `EventLog.position_at`.
    """
    if isinstance(moment, datetime):
        return _positions_at_time(log, moment)
    if isinstance(moment, Mapping):
        positions = dict(moment)
    elif log.partitions == 1:
        positions = {0: moment}
    else:
        raise InvalidQuery(
            "position", moment, f"the log has {log.partitions} partitions; give one for each"
        )
    for partition, position in positions.items():
        if not 0 <= partition < log.partitions:
            raise InvalidQuery("partition", partition, f"the log has {log.partitions}")
        if isinstance(position, bool) or not isinstance(position, int) or position < 0:
            raise InvalidQuery("position", position, "must be a whole number of at least 0")
    missing = sorted(set(range(log.partitions)) - set(positions))
    if missing:
        raise InvalidQuery("position", positions, f"partitions {missing} are missing")
    return positions


def log_at(log: EventLog, moment: Moment) -> LogPrefix:
    """The log as it was, read-only; the log below stays the caller's.

    Raises:
        InvalidQuery, LogUnavailable: see `positions_at`.
        LogGap: a position lies outside the log's bounds, which it names.
    """
    return LogPrefix(log, positions_at(log, moment))


def state_at(log: EventLog, moment: Moment, store: StateStore | None = None) -> Materializer:
    """The state as it was: folded exactly up to the moment.

    Args:
        log: stays the caller's.
        moment: which state.
        store: holds an older state to start from, and receives this one, not yet committed; by
            default, everything from the log's beginning is folded in memory.

    Raises:
        InvalidQuery: see `positions_at`; also for a store that is at a later state.
        LogGap: the moment lies outside the log's bounds, or what lies between the state to start
            from and the log's first position was removed.
        LogReplaced, StoreError: see `Materializer`.
        LogUnavailable, LogDamaged: see `EventLog.read`.
    """
    return replay(log_at(log, moment), store)


def replay(log: LogPrefix, store: StateStore | None = None) -> Materializer:
    """The state after all records of a log as it was; see `state_at`."""
    # The breaker protects state that is kept. Here it would only hide what there is to see.
    materializer = Materializer(log, store or MemoryStore(), poison_limit=sys.maxsize)
    try:
        for partition, position in materializer.positions().items():
            end = log.bounds(partition).end
            if position > end:
                problem = f"the state to start from is later than position {end}"
                raise InvalidQuery(f"partition {partition}", position, problem)
        materializer.catch_up(timeout_s=REPLAY_TIMEOUT_S)
    except BaseException:
        materializer.close()
        raise
    return materializer


def _positions_at_time(log: EventLog, time: datetime) -> dict[int, int]:
    time_us = microseconds(time)
    positions = {}
    for partition in range(log.partitions):
        first = log.bounds(partition).first
        position = log.position_at(partition, time_us)
        if position == first > 0:
            # How much of what was removed had been there by then, nobody knows.
            raise InvalidQuery(
                "time",
                time.isoformat(),
                f"partition {partition} keeps no record from before it; the first is {first}",
            )
        positions[partition] = position
    return positions


def microseconds(time: datetime) -> int:
    """A time as microseconds since the epoch; one without a zone is local.

    Raises:
        InvalidQuery: it lies before the epoch, or at the end of the calendar.
    """
    try:
        time_us = (time.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
    except (OverflowError, ValueError) as error:
        raise InvalidQuery("time", time.isoformat(), "lies outside the calendar") from error
    if time_us < 0:
        raise InvalidQuery("time", time.isoformat(), "lies before 1970")
    return time_us
