"""What a fold measures of itself: how long it takes, and how far behind it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from relive.log import Record
from relive.measures import DELAY_BOUNDS_S, Histogram


def _now_us() -> int:
    return time.time_ns() // 1_000


class FoldMeasures:
    """Of one materializer, since it was opened. Written under the fold's lock.

    Args:
        clock_s: seconds that only rise.
        now_us: microseconds since the epoch, to compare the log's times with.

    Attributes:
        fold_s: seconds that a batch of records took, followers included.
        commit_s: seconds that a commit took.
        freshness_s: seconds from a record's being acknowledged to its being searchable. Not of
            records that were there already when this process came.
        events: records folded.
        commit_failures: commits that could not be written.
    """

    def __init__(
        self, clock_s: Callable[[], float] = time.monotonic, now_us: Callable[[], int] = _now_us
    ) -> None:
        self._clock_s, self._now_us = clock_s, now_us
        self.fold_s = Histogram()
        self.commit_s = Histogram()
        self.freshness_s = Histogram(DELAY_BOUNDS_S)
        self.events = 0
        self.commit_failures = 0
        self._appended_us: dict[int, int] = {}  # the last folded record of each partition
        self._looked_s = self._caught_up_s = self._clock_s()

    def folded(self, records: Sequence[Record], count: int, started_s: float, live: bool) -> None:
        """A batch was folded, and followed.

        Args:
            records: that were read; with those that were folded before.
            count: of those folded now.
            started_s: `time.perf_counter` before.
            live: whether this process has caught up once.
        """
        self._looked_s = self._clock_s()
        if not count:
            return
        self.events += count
        self.fold_s.observe(time.perf_counter() - started_s)
        # Near enough where another thread folded some of them meanwhile.
        new = records[-count:]
        for record in new:
            if record.time_us:
                self._appended_us[record.partition] = record.time_us
        if live:
            now_us = self._now_us()
            # The log's clock may be another machine's, and ahead of this one's.
            ages = [max(0, now_us - record.time_us) / 1e6 for record in new if record.time_us]
            self.freshness_s.observe_all(ages)

    def caught_up(self) -> None:
        """A read of the log's end found nothing more."""
        self._looked_s = self._caught_up_s = self._clock_s()

    def committed(self, started_s: float) -> None:
        """A commit was written.

        Args:
            started_s: `time.perf_counter` before.
        """
        self.commit_s.observe(time.perf_counter() - started_s)

    def age_s(self) -> float:
        """Seconds since the log was last read."""
        return self._clock_s() - self._looked_s

    def lag_s(self, behind: Mapping[int, int]) -> dict[int, float]:
        """Seconds that each partition is behind.

        Args:
            behind: records of each partition that are not folded yet.

        Returns:
            the age of the last folded record, or the time since the end was last seen if that is
            shorter: a record that comes after a quiet day is not a day late.
        """
        quiet_s = self._clock_s() - self._caught_up_s
        now_us = self._now_us()
        return {
            partition: min(quiet_s, max(0, now_us - self._appended_us.get(partition, 0)) / 1e6)
            if count
            else 0.0
            for partition, count in behind.items()
        }
