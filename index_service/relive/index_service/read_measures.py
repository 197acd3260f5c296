"""What an engine measures of the reads it answers."""

from __future__ import annotations

import time

from relive.core.priority import FloatArray
from relive.measures import SHARE_BOUNDS, Histogram

# Looking takes 5 µs, a small sample 100.
_LOOK_AT_ONE_OF = 8


class ReadMeasures:
    """Of one engine, since it was opened.

    Attributes:
        search_s: seconds that searches took; several at once are one.
        sample_s: seconds that samples took.
        effective_share: of every eighth sample; see `effective_share`.
        sampled: experiences drawn.
    """

    def __init__(self) -> None:
        self.search_s = Histogram()
        self.sample_s = Histogram()
        self.effective_share = Histogram(SHARE_BOUNDS)
        self.sampled = 0
        self._samples = 0

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
            if self._samples % _LOOK_AT_ONE_OF == 0:
                self.effective_share.observe(effective_share(probabilities))
            self._samples += 1
        self.sample_s.observe(time.perf_counter() - started_s)


def effective_share(probabilities: FloatArray) -> float:
    """The effective size of a sample, as a share of its size: (Σw)² / Σw² / n, w = 1 / p.

    So many draws of equal weight would estimate a mean as well.

    Args:
        probabilities: above 0, of shape (n,), n at least 1.
    """
    # In relation to the largest weight, so that nothing overflows.
    weights = probabilities.min() / probabilities
    total = float(weights.sum())
    return total * total / float(weights @ weights) / len(weights)
