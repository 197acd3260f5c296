from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from relive.measures import Histogram

FINITE = st.floats(0, 100)


@given(st.lists(FINITE, unique=True, min_size=1).map(sorted), st.lists(FINITE), st.lists(FINITE))
def test_each_observation_is_in_the_first_bucket_that_it_fits(
    bounds: list[float], one_by_one: list[float], together: list[float]
) -> None:
    histogram = Histogram(bounds)
    for value in one_by_one:
        histogram.observe(value)
    histogram.observe_all(together)
    seen, values = histogram.observed(), one_by_one + together
    for at, bound in enumerate(bounds):
        assert sum(seen.counts[: at + 1]) == sum(value <= bound for value in values)
    assert seen.count == len(values)
    assert abs(seen.total - sum(values)) < 1e-6 * (1 + sum(values))


def test_no_observation_is_lost_between_threads() -> None:
    histogram = Histogram([0.5])
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(histogram.observe, [1.0] * 20_000))
    assert histogram.observed().counts == (0, 20_000)
    assert repr(histogram) == "Histogram(count=20000, total=20000)"
