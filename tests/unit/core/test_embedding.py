"""Similarity against brute force of the definitions in the module's docstring, in float64."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.embedding import EmbeddingSpace, HybridMode, Metric, Query
from relive.errors import InvalidConfig, InvalidQuery

Vector = npt.NDArray[np.float32]
Pair = tuple[Vector | None, Vector | None]

FLOAT32 = st.floats(-100.0, 100.0, width=32)


def vectors(dim: int) -> st.SearchStrategy[Vector]:
    zero = st.just(np.zeros(dim, dtype=np.float32))
    made = st.lists(FLOAT32, min_size=dim, max_size=dim).map(lambda v: np.array(v, np.float32))
    return zero | made | made


def pairs(visual_dim: int, text_dim: int) -> st.SearchStrategy[Pair]:
    visual, text = vectors(visual_dim), vectors(text_dim)
    return st.tuples(visual, text) | st.tuples(visual, st.none()) | st.tuples(st.none(), text)


def cos(a: Vector, b: Vector) -> float:
    lengths = float(np.linalg.norm(a.astype(float)) * np.linalg.norm(b.astype(float)))
    return float(a.astype(float) @ b.astype(float)) / lengths if lengths else 0.0


def unit(a: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = float(np.linalg.norm(a))
    return a / length if length else a


def average(pair: Pair, weights: tuple[float, float], normalise: bool) -> Any:
    total: Any = 0.0
    for half, weight in zip(pair, weights, strict=True):
        if half is not None:
            total = total + weight * (unit(half.astype(float)) if normalise else half.astype(float))
    given = sum(w for half, w in zip(pair, weights, strict=True) if half is not None)
    return unit(total) if normalise else total / given if given else total


def brute_force(
    metric: Metric,
    mode: HybridMode,
    configured: tuple[float, float],
    asked: tuple[float, float],
    query: Pair,
    row: Pair,
) -> float:
    if mode is HybridMode.AVERAGE:
        cosine = metric is Metric.COSINE
        # Rows are averaged once, by the configured weights.
        q, x = average(query, asked, cosine), average(row, configured, cosine)
        return float(q @ x) if cosine else -float((q - x) @ (q - x))
    total = sum(asked)
    score = weight_of_query = 0.0
    for q, x, weight in zip(query, row, asked, strict=True):
        if q is None:
            continue
        weight_of_query += weight / total
        if metric is Metric.COSINE:
            score += 0.0 if x is None else weight / total * cos(q, x)
        else:
            gap = q.astype(float) - (0.0 if x is None else x.astype(float))
            score -= weight / total * float(gap @ gap)
    return score / weight_of_query if metric is Metric.COSINE else score


def score(space: EmbeddingSpace, query: Query, row: Pair) -> float:
    return float(query.exact(space.row(*row)[None, :])[0])


WEIGHTS = st.sampled_from([(0.7, 0.3), (3.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.001, 0.999)])


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("mode", list(HybridMode))
def test_scores_are_those_of_the_definition(metric: Metric, mode: HybridMode) -> None:
    dims = (3, 3) if mode is HybridMode.AVERAGE else (3, 2)

    @given(pairs(*dims), pairs(*dims), WEIGHTS, st.none() | WEIGHTS)
    def is_brute_force(
        query: Pair, row: Pair, configured: tuple[float, float], own: tuple[float, float] | None
    ) -> None:
        space = EmbeddingSpace(*dims, metric, mode, *configured)
        asked = own or configured
        if sum(w for w, half in zip(asked, query, strict=True) if half is not None) == 0.0:
            with pytest.raises(InvalidQuery, match="leave nothing"):
                space.query(*query, *(own or (None, None)))
            return
        prepared = space.query(*query, *(own or (None, None)))
        expected = brute_force(metric, mode, configured, asked, query, row)
        got = score(space, prepared, row)
        # Rows are kept as float32.
        assert got == pytest.approx(
            expected, rel=2e-5, abs=2e-5 if metric is Metric.COSINE else 0.05
        )

        # And the scan orders as the score does: the two differ by what all rows share.
        other: Pair = (np.full(dims[0], 0.5, np.float32), None)
        by_scan = prepared.scan @ space.row(*row) - prepared.scan @ space.row(*other)
        assert float(by_scan) == pytest.approx(
            got - score(space, prepared, other),
            abs=1e-5 if metric is Metric.COSINE else 0.2,
            rel=1e-4,
        )

    is_brute_force()


def test_the_default_is_seven_to_three_as_written() -> None:
    space = EmbeddingSpace(2, 2)
    right, up = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    query = space.query(right, right)
    assert score(space, query, (right, up)) == pytest.approx(0.7)
    assert score(space, query, (up, right)) == pytest.approx(0.3)
    assert score(space, query, (right, None)) == pytest.approx(0.7)
    assert score(space, space.query(right, None), (right, up)) == pytest.approx(1.0)
    assert score(space, space.query(right, None), (None, up)) == 0.0


def test_a_zero_vector_scores_nothing_under_cosine() -> None:
    space = EmbeddingSpace(2, 0)
    zero, some = np.zeros(2, np.float32), np.array([1, 2], np.float32)
    assert score(space, space.query(zero, None), (some, None)) == 0.0
    assert score(space, space.query(some, None), (zero, None)) == 0.0


@pytest.mark.parametrize("metric", list(Metric))
def test_float32_float64_lists_and_views_give_the_same_answer(metric: Metric) -> None:
    space = EmbeddingSpace(4, 0, metric)
    values = [0.5, -1.25, 3.0, 1e-3]
    row: Pair = (np.array([1, 2, 3, 4], np.float32), None)
    backwards = np.array(values[::-1], np.float32)[::-1]
    big_endian = np.array(values, ">f8")
    forms: list[Any] = [values, tuple(values), np.array(values), np.array(values, np.float32)]
    scores = {score(space, space.query(f, None), row) for f in [*forms, backwards, big_endian]}
    assert len(scores) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_neither_query_nor_rows_are_modified(dtype: Any) -> None:
    space = EmbeddingSpace(3, 3)
    query, row = np.array([1, 2, 3], dtype), np.array([4, 5, 6], np.float32)
    space.query(query, query, 1.0, 2.0).exact(space.row(row, row)[None, :])
    assert query.tolist() == [1, 2, 3]
    assert row.tolist() == [4, 5, 6]


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("mode", list(HybridMode))
@pytest.mark.parametrize("width", [1, 3, 17, 768, 8_192, 8_193])
def test_a_row_scores_the_same_in_any_company(metric: Metric, mode: HybridMode, width: int) -> None:
    space = EmbeddingSpace(width, width, metric, mode)
    random = np.random.default_rng(1)
    rows = space.rows(
        list(random.standard_normal((40, width)).astype(np.float32)),
        list(random.standard_normal((40, width)).astype(np.float32)),
    )
    query = space.query(random.standard_normal(width), random.standard_normal(width))
    together = query.exact(rows)
    alone = [float(query.exact(rows[at : at + 1])[0]) for at in range(len(rows))]
    assert together.tolist() == alone
    assert query.exact(rows[3:8]).tolist() == alone[3:8]


@given(st.lists(pairs(3, 3), min_size=1, max_size=5), st.sampled_from(list(Metric)))
def test_many_rows_are_made_as_one_is(many: list[Pair], metric: Metric) -> None:
    for mode in HybridMode:
        space = EmbeddingSpace(3, 3, metric, mode)
        rows = space.rows([visual for visual, _ in many], [text for _, text in many])
        assert rows.shape == (len(many), space.width)
        assert rows.dtype == np.float32
        for pair, row in zip(many, rows, strict=True):
            assert space.row(*pair).tolist() == row.tolist()


# Kinds of embeddings that the buffer does not have yet


@pytest.mark.parametrize("metric", list(Metric))
def test_a_query_may_bring_what_no_row_has_yet(metric: Metric) -> None:
    space = EmbeddingSpace(2, 0, metric)
    near, far = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    text = np.array([3, 4, 0], np.float32)
    both = space.query(near, text)
    for row in (near, far):
        expected = brute_force(
            metric, HybridMode.WEIGHTED, (0.7, 0.3), (0.7, 0.3), (near, text), (row, None)
        )
        assert score(space, both, (row, None)) == pytest.approx(expected, rel=1e-6)
    only = score(space, space.query(None, text), (near, None))
    assert only == (0.0 if metric is Metric.COSINE else pytest.approx(-0.3 * 25.0))


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("mode", list(HybridMode))
def test_a_buffer_without_any_embedding_takes_any_query(metric: Metric, mode: HybridMode) -> None:
    space = EmbeddingSpace(0, 0, metric, mode)
    query = space.query([1.0, 2.0, 3.0], [1.0])
    assert len(query.exact(np.zeros((0, space.width), np.float32))) == 0


def test_in_a_shared_space_either_kind_finds_the_other() -> None:
    space = EmbeddingSpace(2, 0, Metric.COSINE, HybridMode.AVERAGE)
    right = np.array([1, 0], np.float32)
    assert score(space, space.query(None, right), (right, None)) == pytest.approx(1.0)
    with pytest.raises(InvalidQuery, match="this buffer has 2"):
        space.query(None, np.ones(3))


# Refusals


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((None, None), "visual, text"),
        (([1.0, 2.0, 3.0], None), "visual"),
        (([1.0], None), "visual"),
        (([], None), "visual"),
        (([[1.0, 2.0]], None), "visual"),
        ((3.0, None), "visual"),
        (("ab", None), "visual"),
        (([1.0, None], None), "visual"),
        (([[1.0], [1.0, 2.0]], None), "visual"),
        (([True, False], None), "visual"),
        (([1j, 2j], None), "visual"),
        (([1.0, math.nan], None), "visual[1]"),
        ((None, [math.inf, 1.0, 2.0]), "text[0]"),
        ((None, [1.0, 1e300, 2.0]), "text[1]"),
        ((None, np.array([3e38, 3e38, 3e38], np.float32)), "text"),
        (([1.0, 2.0], None, -1.0), "visual_weight"),
        (([1.0, 2.0], None, math.nan), "visual_weight"),
        (([1.0, 2.0], None, "x"), "visual_weight"),
        (([1.0, 2.0], None, None, math.inf), "text_weight"),
        (([1.0, 2.0], None, 0.0, 0.0), "visual_weight, text_weight"),
        (([1.0, 2.0], None, 0.0, 1.0), "visual_weight, text_weight"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_name(
    arguments: tuple[Any, ...], field: str
) -> None:
    with pytest.raises(InvalidQuery) as refused:
        EmbeddingSpace(2, 3).query(*arguments)
    assert refused.value.field == field


def test_an_average_needs_one_shared_space() -> None:
    with pytest.raises(InvalidConfig, match="shared space"):
        EmbeddingSpace(2, 3, mode=HybridMode.AVERAGE)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("mode", list(HybridMode))
def test_the_longest_embeddings_that_are_taken_still_scan_as_numbers(
    metric: Metric, mode: HybridMode
) -> None:
    space = EmbeddingSpace(2, 2, metric, mode)
    long = np.array([7e14, -7e14], np.float32)
    query = space.query(long, long)
    for row in (space.row(long, -long), space.row(-long, None), space.row(long, long)):
        assert math.isfinite(float(query.scan @ row))
        assert math.isfinite(float(query.exact(row[None, :])[0]))
