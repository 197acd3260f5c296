from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relive.core.results import SampleBatch
from relive.index_service.read_measures import ReadMeasures, effective_share


@given(st.integers(1, 100), st.floats(1e-300, 1.0))
def test_equally_likely_experiences_count_in_full(n: int, probability: float) -> None:
    assert abs(effective_share(np.full(n, probability)) - 1.0) < 1e-6


@given(st.lists(st.floats(1e-9, 1.0), min_size=1))
def test_the_effective_size_is_that_of_its_definition(probabilities: list[float]) -> None:
    weights = 1 / np.array(probabilities)
    expected = weights.sum() ** 2 / (weights**2).sum() / len(weights)
    assert abs(effective_share(np.array(probabilities)) - expected) < 1e-6


def test_what_is_as_good_as_never_drawn_counts_as_none() -> None:
    assert effective_share(np.array([0.5, 0.5, 0.0, 0.0])) == 0.5
    assert effective_share(np.array([5e-324, 1.0])) == 0.5
    assert effective_share(np.zeros(3)) == 0.0


def test_every_eighth_sample_is_looked_at() -> None:
    measures = ReadMeasures()
    drawn = SampleBatch("", None, {}, 0, 0.0, ids=["a", "b"], probabilities=np.array([0.5, 0.5]))
    for _ in range(9):
        measures.sampled_batch(drawn, 0.01)
    assert measures.sampled == 18
    assert measures.sample_s.observed().count == 9
    assert measures.effective_share.observed().count == 2


def test_an_empty_sample_is_a_sample_of_no_size() -> None:
    measures = ReadMeasures()
    measures.sampled_batch(SampleBatch("", None, {}, 0, 0.0), 0.01)
    assert measures.sample_s.observed().count == 1
    assert measures.effective_share.observed().count == 0
