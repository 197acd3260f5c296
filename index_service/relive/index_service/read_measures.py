"""What an engine measures of the reads it answers."""

from __future__ import annotations

import time

from relive.core.priority import FloatArray
from relive.measures import SIZE_BOUNDS, Histogram


class ReadMeasures:
    """Of one engine, since it was opened.

    Attributes:
        search_s: seconds that searches took; several at once are one.
        sample_s: seconds that samples took.
        effective_size: of the samples; see `effective_size`.
        sampled: experiences drawn.
    """

    def __init__(self) -> None:
        self.search_s = Histogram()
        self.sample_s = Histogram()
        self.effective_size = Histogram(SIZE_BOUNDS)
        self.sampled = 0

    def searched(self, started_s: float) -> None:
        """A search was answered; it began at this `time.perf_counter`."""
        self.search_s.observe(time.perf_counter() - started_s)

    def drew(self, probabilities: FloatArray, started_s: float) -> None:
        """A sample was answered.

        Args:
            probabilities: of what was drawn.
            started_s: `time.perf_counter` before.
        """
        self.sampled += len(probabilities)
        if len(probabilities):
            self.effective_size.observe(effective_size(probabilities))
        self.sample_s.observe(time.perf_counter() - started_s)


def effective_size(probabilities: FloatArray) -> float:
    """How many draws of equal weight would estimate a mean as well: (Σw)² / Σw², w = 1 / p.

    Args:
        probabilities: above 0, of shape (n,), n at least 1.
    """
    # In relation to the largest weight, so that nothing overflows.
    weights = probabilities.min() / probabilities
    total = float(weights.sum())
    return total * total / float(weights @ weights)
