"""What `search_many` promises, of the embedded buffer and of the client alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from relive.buffer import Experience, Filter
from relive.errors import InvalidQuery

RANDOM = np.random.default_rng(4)
VISUAL = RANDOM.standard_normal((9, 8))
TEXT = RANDOM.standard_normal((9, 4))


def answers(results: Any) -> Any:
    return [[(hit.id, hit.score) for hit in result] for result in results]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 3},
        {"k": 0},
        {"k": 100, "visual_weight": 0.1, "text_weight": 0.9},
        {"filter": Filter(min_reward=0.0, where={"odd": True})},
        {"k": 60, "min_score": 0.2},
    ],
)
def test_each_answer_is_that_of_a_search_to_the_bit(
    reads: Any,
    make_experiences: Callable[..., list[Experience]],
    options: dict[str, Any],
) -> None:
    reads.buffer.add_many(make_experiences(60))
    reads.buffer.add_many(
        Experience(id=f"m{n}", visual=VISUAL[n], metadata={"odd": n % 2 == 1}) for n in range(9)
    )
    for queries in ({"visual": VISUAL}, {"text": TEXT}, {"visual": VISUAL, "text": TEXT}):
        results = reads.search_many(**queries, **options)

        alone = [
            reads.search(**{name: rows[at] for name, rows in queries.items()}, **options)
            for at in range(9)
        ]
        assert answers(results) == answers(alone)
        assert [type(result) for result in results] == [type(result) for result in alone]


def test_all_answers_are_at_the_same_positions_and_each_is_a_retrieval_of_its_own(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    results = reads.search_many(visual=VISUAL, k=5)
    assert len({result.retrieval_id for result in results}) == 9
    assert len({tuple(result.positions.items()) for result in results}) == 1
    assert results[0].positions == reads.buffer.stats().positions
    reads.report(results[4].retrieval_id, "x0", success=True)
    reads.make_retrievals_count()
    again = reads.get("x0")
    assert (again.retrieval_count, again.success_count) == (9, 1)


def test_no_queries_have_no_answers(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    assert reads.search_many(visual=[]) == []
    assert reads.search_many(visual=np.zeros((0, 8)), text=np.zeros((0, 4))) == []


def test_float32_float64_and_lists_give_the_same_answer_and_stay_as_they_are(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(30))
    single = VISUAL.astype(np.float32)
    double = single.astype(np.float64)
    forms = [single, double, double.tolist(), np.asfortranarray(double), double[::-1][::-1]]
    kept = [np.array(form, copy=True) for form in forms]
    many = [answers(reads.search_many(visual=form, k=4)) for form in forms]
    one = [answers([reads.search(visual=row, k=4) for row in form]) for form in forms]
    assert all(answer == many[0] for answer in many + one)
    for form, before in zip(forms, kept, strict=True):
        np.testing.assert_array_equal(form, before)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "visual, text"),
    ({"visual": VISUAL[0]}, "visual"),
    ({"visual": VISUAL[None]}, "visual"),
    ({"visual": [[1.0] * 8, [1.0] * 7]}, "visual"),
    ({"visual": "abc"}, "visual"),
    ({"visual": [["a"] * 8]}, "visual[0]"),
    ({"visual": np.zeros((2, 0))}, "visual[0]"),
    ({"visual": VISUAL[:, :7]}, "visual"),
    ({"text": [[0.0] * 4, [0.0, np.nan, 0.0, 0.0]]}, "text[1][1]"),
    ({"visual": VISUAL, "text": TEXT[:8]}, "visual, text"),
    ({"visual": np.zeros((1_001, 8)), "k": 1}, "visual"),
    ({"visual": VISUAL, "k": 100_000 // 9 + 1}, "k"),
    ({"visual": VISUAL, "k": -1}, "k"),
    ({"visual": VISUAL, "k": 1.0}, "k"),
    ({"visual": VISUAL, "visual_weight": -1.0}, "visual_weight"),
]


def test_what_makes_no_sense_is_refused_by_name(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    for queries, field in REFUSED:
        with pytest.raises(InvalidQuery) as refused:
            reads.search_many(**queries)
        assert refused.value.field == field


def test_as_many_as_allowed_are_answered(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    results = reads.search_many(visual=np.ones((1_000, 8)), k=100)
    assert len(results) == 1_000
    assert answers(results) == [answers(results[:1])[0]] * 1_000
