"""What an engine measures of the reads it answers."""

from __future__ import annotations

from relive.core.priority import FloatArray
from relive.core.results import SampleBatch
from relive.core.sequences import SequenceBatch
from relive.measures import SHARE_BOUNDS, Histogram

# Looking takes 5 µs, a small sample 100.
_LOOK_AT_ONE_OF = 8


class ReadMeasures:
    """Of one engine, since it was opened.

    Attributes:
        search_s: seconds that searches took; several at once are one.
        sample_s: seconds that samples took.
        effective_share: of every eighth sample; see `effective_share`.
        sampled: experiences and sequences drawn.
    """

    def __init__(self) -> None:
        self.search_s = Histogram()
        self.sample_s = Histogram()
        self.effective_share = Histogram(SHARE_BOUNDS)
        self.sampled = 0
        self._samples = 0

    def searched(self, _: object, seconds: float) -> None:
        """A search was answered."""
        self.search_s.observe(seconds)

    def sampled_batch(self, batch: SampleBatch, seconds: float) -> None:
        """A sample was answered."""
        if len(batch):
            if self._samples % _LOOK_AT_ONE_OF == 0:
                self.effective_share.observe(effective_share(batch.probabilities))
            self._samples += 1
        self._drew(len(batch), seconds)

    def sampled_sequences(self, batch: SequenceBatch, seconds: float) -> None:
        """A sample of sequences was answered."""
        self._drew(len(batch), seconds)

    def _drew(self, count: int, seconds: float) -> None:
        self.sampled += count
        self.sample_s.observe(seconds)


def effective_share(probabilities: FloatArray) -> float:
    """The effective size of a sample, as a share of its size: (Σw)² / Σw² / n, w = 1 / p.

    So many draws of equal weight would estimate a mean as well.

    Args:
        probabilities: of shape (n,), n at least 1. One too small to be told from 0 counts as none.
    """
    least = probabilities.min()
    likely = probabilities
    if least <= 0.0:
        likely = probabilities[probabilities > 0.0]
        least = likely.min(initial=1.0)
    # In relation to the largest weight, so that nothing overflows.
    weights = least / likely
    total, squares = float(weights.sum()), float(weights @ weights)
    return total * total / squares / len(probabilities) if squares else 0.0
