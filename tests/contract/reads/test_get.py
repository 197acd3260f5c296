"""What `get`, `stats` and `report_outcome` promise, of the buffer and of the client alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from relive.buffer import Experience
from relive.core.results import BufferStats, Token
from relive.errors import InvalidExperience, InvalidQuery

DOCUMENT = {
    "": "the empty key",
    "ключ": "значение",
    "emoji": '🧠\u0000\n"\\',
    "int": 1,
    "float": 1.0,
    "big": 2**63,
    "small": -(2**63),
    "tiny": 5e-324,
    "third": 1 / 3,
    "flags": [True, False, None],
    "nested": {"list": [[], [{}], [[1, 2.0, "3"]]]},
}


def types_of(value: Any) -> Any:
    """The types of a document, all the way down."""
    if isinstance(value, dict):
        return {key: types_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [types_of(inner) for inner in value]
    return type(value)


def test_an_unknown_id_is_none(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))

    assert reads.get("nobody") is None
    assert reads.get("") is None


def test_a_removed_one_is_none(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    reads.buffer.remove("x1")

    assert reads.get("x1") is None


@pytest.mark.parametrize("experience_id", [None, 7, b"x1"])
def test_an_id_that_is_not_text_is_refused(reads: Any, experience_id: Any) -> None:
    with pytest.raises(InvalidQuery) as refused:
        reads.get(experience_id)

    assert refused.value.field == "id"


def test_every_field_comes_back_as_it_went_in(reads: Any) -> None:
    recorded = Experience(
        id="вопрос/1",
        visual=np.arange(8, dtype=np.float32),
        text=np.arange(4, dtype=np.float32) / 3,
        question="why? ¿por qué?",
        trajectory=[{"action": "look", "at": [1, 2.0]}, {}],
        total_reward=-1.25,
        model_confidence=0.75,
        final_answer=DOCUMENT,
        metadata=DOCUMENT,
        initial_priority=2.5,
        episode_id="e1",
        step=0,
        input_uri="s3://bucket/key",
        input_sha256=bytes(range(32)),
        timestamp=1_700_000_000_000_000,
    )
    reads.buffer.add(recorded)

    found = reads.get("вопрос/1")

    for field in dataclasses.fields(Experience):
        if field.name == "priority":
            continue
        wanted, got = getattr(recorded, field.name), getattr(found, field.name)
        if isinstance(wanted, np.ndarray):
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == np.float32
        else:
            assert got == wanted, field.name
            assert types_of(got) == types_of(wanted), field.name


def test_what_was_left_out_comes_back_left_out(reads: Any) -> None:
    reads.buffer.add(Experience(id="x", text=[1.0, 0.0, 0.0, 0.0]))

    found = reads.get("x")

    assert found.visual is None
    assert (found.initial_priority, found.episode_id, found.step) == (None, None, None)
    assert (found.input_uri, found.input_sha256, found.final_answer) == (None, None, None)
    assert (found.trajectory, found.metadata, found.question) == ([], {}, "")


@pytest.mark.parametrize("answer", [None, True, 0, 0.0, "", "4", [], {}, [None], 3, 3.0])
def test_a_final_answer_keeps_its_type(reads: Any, answer: Any) -> None:
    reads.buffer.add(Experience(id="x", text=[1.0, 0.0, 0.0, 0.0], final_answer=answer))

    found = reads.get("x").final_answer

    assert found == answer
    assert types_of(found) == types_of(answer)


def test_embeddings_that_come_back_cannot_be_written_to(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(1))

    with pytest.raises(ValueError, match="read-only"):
        reads.get("x0").visual[0] = 1.0


def test_priority_is_that_of_the_moment(reads: Any) -> None:
    reads.buffer.add(
        Experience(id="x", text=[1.0, 0, 0, 0], total_reward=1.0, model_confidence=0.5)
    )

    assert reads.get("x").priority == pytest.approx(0.4 * 0.5 + 0.4, abs=1e-3)


def test_statistics_are_the_same_in_both_ways(
    both: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    embedded, _ = both
    embedded.buffer.add_many(make_experiences(120))
    embedded.buffer.remove("x110")

    one, other = (way.stats() for way in both)

    assert one.recovery is not None
    assert other.recovery is not None
    assert (other.recovery.source, other.recovery.passed_over) == ("log", ())
    # Each has files of its own.
    own: dict[str, Any] = {"recovery": None, "payload_bytes": 0, "state_bytes": 0}
    assert replace(one, snapshot_bytes=0, **own) == replace(other, snapshot_bytes=0, **own)
    assert (one.size, one.capacity, one.additions, one.evictions, one.removals) == (
        99,
        100,
        120,
        20,
        1,
    )
    assert type(other) is BufferStats


def test_an_outcome_counts_in_what_is_read_afterwards(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    result = reads.search(visual=[1.0] * 8, k=1)

    token = reads.report(result.retrieval_id, result[0].id, success=True, reward=1.5)

    assert isinstance(token, Token)
    assert token.id == result[0].id
    found = reads.get(result[0].id)
    assert (found.retrieval_count, found.success_count, found.success_rate) == (1, 1, 1.0)
    assert reads.stats().outcomes == 1


def test_of_two_reports_about_a_retrieval_the_higher_revision_holds(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(1))

    reads.report("r1", "x0", success=True, revision=2)
    reads.report("r1", "x0", success=False, revision=1)

    found = reads.get("x0")
    assert (found.retrieval_count, found.success_count) == (1, 1)


def test_an_outcome_needs_no_retrieval(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(1))

    reads.report(None, "x0", success=False)

    found = reads.get("x0")
    assert (found.retrieval_count, found.success_count) == (1, 0)


def test_retrievals_count_once_they_are_flushed(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    reads.search(visual=[1.0] * 8, k=3)
    reads.sample(3)

    reads.make_retrievals_count()

    assert [reads.get(f"x{at}").retrieval_count for at in range(3)] == [2, 2, 2]
    assert reads.stats().retrievals == 6


@pytest.mark.parametrize(
    ("arguments", "options", "field"),
    [
        ((None, ""), {"success": True}, "experience_id"),
        ((None, "x" * 513), {"success": True}, "experience_id"),
        ((None, 7), {"success": True}, "experience_id"),
        (("", "x0"), {"success": True}, "retrieval_id"),
        (("r" * 513, "x0"), {"success": True}, "retrieval_id"),
        ((7, "x0"), {"success": True}, "retrieval_id"),
        ((None, "\ud800"), {"success": True}, "experience_id"),
        ((None, "x0"), {"success": 1}, "success"),
        ((None, "x0"), {"success": None}, "success"),
        ((None, "x0"), {"success": True, "reward": float("nan")}, "reward"),
        ((None, "x0"), {"success": True, "reward": "much"}, "reward"),
        ((None, "x0"), {"success": True, "revision": 2**62}, "revision"),
        ((None, "x0"), {"success": True, "revision": 2**70}, "revision"),
        ((None, "x0"), {"success": True, "revision": 1.0}, "revision"),
    ],
)
def test_an_outcome_that_makes_no_sense_is_refused_by_name(
    reads: Any, arguments: Any, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidExperience) as refused:
        reads.report(*arguments, **options)

    assert refused.value.field == field
    assert reads.stats().outcomes == 0
