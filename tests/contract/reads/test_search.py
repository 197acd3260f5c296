"""What `search` promises, of the embedded buffer and of the client alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from relive.buffer import Experience
from relive.errors import InvalidQuery

VISUAL = [1.0, 0.5, -0.5, 2.0, 0.0, 0.1, 0.2, -1.0]
TEXT = [0.3, -0.7, 1.0, 0.0]
QUERIES = [
    {"visual": VISUAL},
    {"text": TEXT},
    {"visual": VISUAL, "text": TEXT},
    {"visual": VISUAL, "text": TEXT, "visual_weight": 0.1, "text_weight": 0.9},
]


def cosine(a: Any, b: Any) -> Any:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def score(query: dict[str, Any], experience: Experience) -> Any:
    """The definition: Σ w·cos over the modalities both have, ÷ Σ w over those of the query."""
    weights = {
        "visual": query.get("visual_weight", 0.7),
        "text": query.get("text_weight", 0.3),
    }
    asked = [name for name in ("visual", "text") if name in query]
    shared = [name for name in asked if getattr(experience, name) is not None]
    return sum(
        weights[name] * cosine(query[name], getattr(experience, name)) for name in shared
    ) / sum(weights[name] for name in asked)


@pytest.mark.parametrize("query", QUERIES)
def test_finds_what_brute_force_finds(
    reads: Any, make_experiences: Callable[..., list[Experience]], query: dict[str, Any]
) -> None:
    stored = make_experiences(40)
    reads.buffer.add_many(stored)

    result = reads.search(**query, k=7)

    expected = sorted(stored, key=lambda e: -score(query, e))[:7]
    assert [hit.id for hit in result] == [e.id for e in expected]
    assert [hit.score for hit in result] == pytest.approx(
        [score(query, e) for e in expected], abs=1e-6
    )


@pytest.mark.parametrize("query", QUERIES)
def test_both_ways_give_the_same_bits(
    both: Any, make_experiences: Callable[..., list[Experience]], query: dict[str, Any]
) -> None:
    embedded, _ = both
    embedded.buffer.add_many(make_experiences(40))

    one, other = (way.search(**query, k=7) for way in both)

    assert [(hit.id, hit.score) for hit in one] == [(hit.id, hit.score) for hit in other]
    assert type(one) is type(other)
    assert type(one[0]) is type(other[0])
    assert type(one[0].score) is type(other[0].score)


def test_a_result_has_its_own_retrieval_id_and_positions(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    token = reads.buffer.add_many(make_experiences(3))[-1]

    one, other = reads.search(visual=VISUAL), reads.search(visual=VISUAL)

    assert one.retrieval_id
    assert one.retrieval_id != other.retrieval_id
    assert one.positions[token.partition] > token.position
    assert (one.epoch, one.approximate, one.degraded) == (0, False, False)


def test_a_hit_carries_the_experience(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    stored: Any = make_experiences(1)[0]
    reads.buffer.add(stored)

    (hit,) = reads.search(visual=VISUAL)

    assert hit.experience.id == "x0"
    np.testing.assert_array_equal(hit.experience.visual, np.float32(stored.visual))
    np.testing.assert_array_equal(hit.experience.text, np.float32(stored.text))


def test_k_of_0_finds_nothing(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))

    assert len(reads.search(visual=VISUAL, k=0)) == 0


def test_k_above_the_live_ones_finds_them_all(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(5))
    reads.buffer.remove("x3")

    assert {hit.id for hit in reads.search(visual=VISUAL, k=100)} == {"x0", "x1", "x2", "x4"}


def test_an_empty_buffer_has_no_hits(reads: Any) -> None:
    assert list(reads.search(visual=VISUAL)) == []


def test_a_numpy_k_will_do(reads: Any, make_experiences: Callable[..., list[Experience]]) -> None:
    reads.buffer.add_many(make_experiences(5))

    assert len(reads.search(visual=VISUAL, k=np.int64(2))) == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "visual, text"),
        ({"visual": VISUAL[:-1]}, "visual"),
        ({"text": [*TEXT, 1.0]}, "text"),
        ({"visual": []}, "visual"),
        ({"visual": [VISUAL]}, "visual"),
        ({"visual": "abc"}, "visual"),
        ({"visual": [[1.0], [1.0, 2.0]]}, "visual"),
        ({"visual": [*VISUAL[:-1], math.nan]}, "visual[7]"),
        ({"text": [math.inf, 0, 0, 0]}, "text[0]"),
        ({"visual": VISUAL, "k": -1}, "k"),
        ({"visual": VISUAL, "k": 100_001}, "k"),
        ({"visual": VISUAL, "k": 2**70}, "k"),
        ({"visual": VISUAL, "k": 1.5}, "k"),
        ({"visual": VISUAL, "k": True}, "k"),
        ({"visual": VISUAL, "k": "ten"}, "k"),
        ({"visual": VISUAL, "visual_weight": -1.0}, "visual_weight"),
        ({"visual": VISUAL, "text_weight": math.nan}, "text_weight"),
        ({"visual": VISUAL, "visual_weight": 0.0}, "visual_weight, text_weight"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    reads: Any, make_experiences: Callable[..., list[Experience]], query: dict[str, Any], field: str
) -> None:
    reads.buffer.add_many(make_experiences(3))

    with pytest.raises(InvalidQuery) as refused:
        reads.search(**query)

    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")
    assert isinstance(refused.value.value, str)


def test_a_refusal_reads_the_same_in_both_ways(
    both: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    embedded, _ = both
    embedded.buffer.add_many(make_experiences(3))
    refusals = []
    for way in both:
        with pytest.raises(InvalidQuery) as refused:
            way.search(visual=VISUAL[:-1])
        refusals.append((str(refused.value), refused.value.field, refused.value.value))

    assert refusals[0] == refusals[1]
