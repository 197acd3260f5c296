"""How much may be sampled: not too early, not too often, and not one experience for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from relive.errors import InvalidConfig, SampleTimeout


@dataclass(frozen=True, slots=True)
class SamplingLimits:
    """Limits on what one process samples. Counts begin when it opens the buffer.

    Attributes:
        min_size: experiences that must be live before the first sample.
        samples_per_insert: experiences drawn per experience there was or came since; None for any.
        max_times_sampled: after so many times an experience is drawn no more (it is still found by
            searches); None for any.
        timeout_s: how long a sample waits for what is missing.
    """

    min_size: int = 0
    samples_per_insert: float | None = None
    max_times_sampled: int | None = None
    timeout_s: float = 10.0

    def check(self, capacity: int) -> None:
        """Refuse limits that could never be met.

        Raises:
            InvalidConfig: names the setting.
        """
        if self.min_size > capacity:
            raise InvalidConfig(
                "sample_min_size",
                self.min_size,
                f"would be waited for without end: at most {capacity} experiences are kept",
            )
        times, per_insert = self.max_times_sampled, self.samples_per_insert
        if times is not None and per_insert is not None and times < per_insert:
            raise InvalidConfig(
                "samples_per_insert",
                per_insert,
                f"would never be reached: max_times_sampled lets each be drawn {times} times",
            )


class SampleGate:
    """Lets samples through as the limits allow, and makes others wait. Safe from any thread.

    Args:
        limits: that hold.
        size: how many experiences may be drawn now.
    """

    def __init__(self, limits: SamplingLimits, size: Callable[[], int]) -> None:
        self._limits = limits
        self._size = size
        self._inserted = 0
        self._drawn = 0
        self._changed = threading.Condition()

    def inserted(self, count: int) -> None:
        """So many experiences came."""
        with self._changed:
            self._inserted += count
            self._changed.notify_all()

    def enter(self, n: int, timeout_s: float) -> None:
        """Wait until n may be drawn, and count them as drawn.

        Raises:
            SampleTimeout: they may not; says what was waited for.
        """
        limits = self._limits
        if n == 0 or (limits.min_size == 0 and limits.samples_per_insert is None):
            return
        deadline = time.monotonic() + min(timeout_s, limits.timeout_s)
        with self._changed:
            missing = self._missing(n)
            while missing is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise SampleTimeout(*missing)
                self._changed.wait(left)
                missing = self._missing(n)
            self._drawn += n

    def returned(self, count: int) -> None:
        """So many of those let through were not drawn."""
        if count:
            with self._changed:
                self._drawn -= count
                self._changed.notify_all()

    def _missing(self, n: int) -> tuple[str, float, float] | None:
        limits = self._limits
        if self._size() < limits.min_size:
            return "min_size", limits.min_size, self._size()
        if limits.samples_per_insert is not None:
            allowed = limits.samples_per_insert * self._inserted
            if self._drawn + n > allowed:
                wanted = (self._drawn + n) / limits.samples_per_insert
                return "inserts for samples_per_insert", wanted, self._inserted
        return None
