"""What a filter and `min_score` promise, of the embedded buffer and of the client alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from relive.buffer import Experience, Filter
from relive.errors import InvalidQuery

VISUAL = np.array([1.0, 0.5, -0.5, 2.0, 0.0, 0.1, 0.2, -1.0])

METADATA: dict[str, dict[str, Any]] = {
    "one": {"room": 1, "lamp": "on"},
    "one, a float": {"room": 1.0, "lamp": "off"},
    "true": {"room": True},
    "text": {"room": "1", "lamp": "on"},
    "null": {"room": None},
    "list": {"room": [1]},
    "map": {"room": {"1": 1}},
    "missing": {"lamp": "on"},
}


def found(reads: Any, k: int = 100, **conditions: Any) -> set[str]:
    result = reads.search(visual=VISUAL, k=k, filter=Filter(**conditions))
    ids = [hit.id for hit in result]
    assert len(ids) == len(set(ids))
    return set(ids)


# What `where` is, and what it finds of METADATA.
WHERE: list[tuple[dict[str, Any], set[str]]] = [
    ({"room": 1}, {"one", "one, a float"}),
    ({"room": 1.0}, {"one", "one, a float"}),
    ({"room": True}, {"true"}),
    ({"room": "1"}, {"text"}),
    ({"room": None}, {"null"}),
    ({"room": False}, set()),
    ({"room": 2**64 - 1}, set()),
    ({"room": [1, "1", None]}, {"one", "one, a float", "text", "null"}),
    ({"room": {True, "nowhere"}}, {"true"}),
    ({"room": []}, set()),
    ({"room": 1, "lamp": "on"}, {"one"}),
    ({"room": [1, "1"], "lamp": ["on", "dim"]}, {"one", "text"}),
    ({"lamp": "on"}, {"one", "text", "missing"}),
    ({"nothing": None}, set()),
    ({}, set(METADATA)),
]


def test_metadata_has_to_equal_a_value_of_every_key(reads: Any) -> None:
    reads.buffer.add_many(
        Experience(id=name, visual=VISUAL, metadata=metadata) for name, metadata in METADATA.items()
    )
    for where, expected in WHERE:
        assert found(reads, where=where) == expected, where
        assert len(found(reads, k=1, where=where)) == min(1, len(expected)), where


# What finds which of a, b and c: at 1 to 3 s, of reward -1 to 1, of confidence 0 to 1.
BOUNDS: list[tuple[dict[str, Any], set[str]]] = [
    ({"since": 2_000_000}, {"b", "c"}),
    ({"since": datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)}, {"b", "c"}),
    ({"until": 2_000_000}, {"a"}),
    ({"since": 1_000_000, "until": 3_000_000}, {"a", "b"}),
    ({"since": 2_000_000, "until": 2_000_000}, set()),
    ({"min_reward": 0.0}, {"b", "c"}),
    ({"max_reward": 0.0}, {"a", "b"}),
    ({"min_reward": -1, "max_reward": -1}, {"a"}),
    ({"min_confidence": 0.5}, {"b", "c"}),
    ({"max_confidence": 0.5}, {"a", "b"}),
    ({"min_reward": 0.0, "max_confidence": 0.5}, {"b"}),
    ({}, {"a", "b", "c"}),
]


def test_bounds_are_inclusive_but_for_until(reads: Any) -> None:
    for at, name in enumerate("abc"):
        reads.buffer.add(
            Experience(
                id=name,
                visual=VISUAL,
                timestamp=(at + 1) * 1_000_000,
                total_reward=at - 1,
                model_confidence=at / 2,
            )
        )
    for conditions, expected in BOUNDS:
        assert found(reads, **conditions) == expected, conditions


def test_the_success_rate_is_that_of_get_where_an_outcome_is_known(reads: Any) -> None:
    names = ("never", "unknown", "bad", "mixed", "good")
    reads.buffer.add_many(Experience(id=name, visual=VISUAL) for name in names)
    reads.search(visual=VISUAL)
    for name, outcomes in (("bad", [False]), ("mixed", [True, False]), ("good", [True, True])):
        for number, success in enumerate(outcomes):
            reads.buffer.report_outcome(f"r{number}", name, success=success)
    reads.buffer.report_outcome("r0", "bad", success=True, revision=2**61)  # corrected
    reads.buffer.report_outcome("r0", "good", success=False, revision=2**61)
    for bound in ("min_success_rate", "max_success_rate"):
        for limit in (0.0, 1 / 3, 0.25, 0.5, 1.0):
            reads.make_retrievals_count()  # they make success rates less
            rates = {name: reads.get(name).success_rate for name in ("bad", "mixed", "good")}
            if bound == "min_success_rate":
                expected = {name for name, rate in rates.items() if rate >= limit}
            else:
                expected = {name for name, rate in rates.items() if rate <= limit}
            conditions: Any = {bound: limit}
            assert found(reads, **conditions) == expected, (conditions, rates)


def test_a_filter_leaves_scores_and_order_as_they_are(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    stored: Any = make_experiences(60)
    reads.buffer.add_many(stored)
    above = {e.id for e in stored if e.total_reward >= 0.25}
    unfiltered = [(hit.id, hit.score) for hit in reads.search(visual=VISUAL, k=60)]
    for k in (1, 7, 60):
        result = reads.search(visual=VISUAL, k=k, filter=Filter(min_reward=0.25))
        expected = [pair for pair in unfiltered if pair[0] in above][:k]
        assert [(hit.id, hit.score) for hit in result] == expected


def test_min_score_leaves_out_what_scores_less(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(60))
    everything = [(hit.id, hit.score) for hit in reads.search(visual=VISUAL, k=60)]
    for least in (-1.0, everything[9][1], 0.0, 2.0):
        result = reads.search(visual=VISUAL, k=60, min_score=least)
        assert [(h.id, h.score) for h in result] == [p for p in everything if p[1] >= least]
    assert len(reads.search(visual=VISUAL, k=5, min_score=everything[9][1])) == 5
    assert len(reads.search(visual=VISUAL, k=60, min_score=everything[9][1])) == 10


def test_what_is_found_with_a_filter_counts_as_retrieved(reads: Any) -> None:
    reads.buffer.add_many(
        Experience(id=f"x{n}", visual=VISUAL, metadata={"room": n % 2}) for n in range(6)
    )
    result = reads.search(visual=VISUAL, k=2, filter=Filter(where={"room": 1}))
    assert [hit.id for hit in result] == ["x1", "x3"]
    reads.make_retrievals_count()
    counts = {f"x{n}": reads.get(f"x{n}").retrieval_count for n in range(6)}
    assert counts == {**dict.fromkeys(counts, 0), "x1": 1, "x3": 1}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"filter": {"room": 3}}, "filter"),
    ({"filter": "room=3"}, "filter"),
    ({"min_score": float("nan")}, "min_score"),
    ({"min_score": float("inf")}, "min_score"),
    ({"min_score": 10**400}, "min_score"),
    ({"min_score": "0.5"}, "min_score"),
    ({"min_score": True}, "min_score"),
]


def test_what_makes_no_sense_is_refused_by_name(reads: Any) -> None:
    for arguments, field in REFUSED:
        refusals = []
        for search, query in ((reads.search, VISUAL), (reads.search_many, [VISUAL])):
            with pytest.raises(InvalidQuery) as refused:
                search(visual=query, **arguments)
            assert refused.value.field == field
            refusals.append(str(refused.value))
        assert len(set(refusals)) == 1
