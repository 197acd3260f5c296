"""A clock that stands still until a test turns it."""

import threading


class TurningClock:
    """Microseconds since the epoch, as a callable: `MemoryLog(clock_us=clock)`.

    Any thread may read and turn it.

    Args:
        start_us: what it shows at first; by default a round moment in 2027.
    """

    def __init__(self, start_us: int = 1_800_000_000_000_000) -> None:
        self._now_us = start_us
        self._turning = threading.Lock()

    def __call__(self) -> int:
        return self._now_us

    def advance(self, seconds: float) -> int:
        """Turn it forward; returns what it shows then.

        Raises:
            ValueError: time does not go back.
        """
        if not seconds >= 0:
            raise ValueError(f"a clock is turned forward, not by {seconds} s")
        with self._turning:
            self._now_us += round(seconds * 1_000_000)
            return self._now_us

    def __repr__(self) -> str:
        return f"TurningClock({self._now_us})"
