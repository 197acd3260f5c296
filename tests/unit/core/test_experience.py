import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relive.core.experience import (
    Experience,
    check_recorded,
    content_digest,
    embedding_bytes,
    experience_from,
    recorded_event,
)
from relive.core.row import Row, pack_row, unpack_row
from relive.core.settings import MAX_DIM
from relive.errors import InvalidExperience
from relive.schemas import ExperienceRecorded, decode, encode


def event_of(experience: Experience) -> ExperienceRecorded:
    return recorded_event(
        experience, event_id=b"i" * 16, source="test", new_id=lambda: "made", now_us=7
    )


GOOD = Experience(
    id="x",
    visual=[1.0, 2.0],
    text=[0.5],
    question="?",
    trajectory=[{"action": "left", "n": [1, 2.0, None]}],
    total_reward=-1.5,
    model_confidence=0.25,
    final_answer={"ü": True},
    metadata={"a": 1},
    initial_priority=0.75,
    episode_id="e",
    step=3,
    input_uri="file:/x",
    input_sha256=bytes(32),
    timestamp=5,
)


def test_an_experience_comes_back_from_its_event_as_it_was() -> None:
    event = event_of(GOOD)
    assert decode(encode(event)) == event
    check_recorded(event)
    back = experience_from(event)
    for name in GOOD.__slots__:
        given, got = getattr(GOOD, name), getattr(back, name)
        if name in ("visual", "text"):
            assert got.dtype == np.float32
            assert got.tolist() == given
        else:
            assert (type(got), got) == (type(given), given), name


def test_what_is_left_out_is_filled_in() -> None:
    event = event_of(Experience(visual=[1.0]))
    assert (event.experience_id, event.event_time_us) == ("made", 7)
    assert (event.trajectory, event.final_answer, event.metadata) == ("[]", "null", "{}")
    check_recorded(event)


def test_what_came_of_it_is_not_written() -> None:
    seen = replace(GOOD, retrieval_count=3, success_count=2, success_rate=0.5, priority=9.0)
    assert event_of(seen) == event_of(GOOD)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 513}, "id"),
        ({"id": "ü" * 257}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"id": 3}, "id"),
        ({"id": b"x"}, "id"),
        ({"visual": None, "text": None}, "visual, text"),
        ({"visual": []}, "visual"),
        ({"visual": [[1.0]]}, "visual"),
        ({"visual": 1.0}, "visual"),
        ({"visual": "abc"}, "visual"),
        ({"visual": [[1.0], [1.0, 2.0]]}, "visual"),
        ({"visual": [True]}, "visual"),
        ({"visual": [None]}, "visual"),
        ({"visual": np.zeros(MAX_DIM + 1)}, "visual"),
        ({"visual": [0.0, math.nan]}, "visual[1]"),
        ({"visual": [math.inf]}, "visual[0]"),
        ({"visual": [1e39]}, "visual[0]"),
        ({"text": [0.0, -math.inf]}, "text[1]"),
        ({"text": [1e16]}, "text"),
        ({"question": None}, "question"),
        ({"question": "\udfff"}, "question"),
        ({"trajectory": {}}, "trajectory"),
        ({"trajectory": [1]}, "trajectory"),
        ({"trajectory": [{"a": math.nan}]}, "trajectory"),
        ({"trajectory": ({"a": 1},)}, "trajectory"),
        ({"total_reward": math.nan}, "total_reward"),
        ({"total_reward": -math.inf}, "total_reward"),
        ({"total_reward": "1"}, "total_reward"),
        ({"total_reward": True}, "total_reward"),
        ({"total_reward": None}, "total_reward"),
        ({"total_reward": 10**400}, "total_reward"),
        ({"total_reward": 1j}, "total_reward"),
        ({"model_confidence": 1.0000001}, "model_confidence"),
        ({"model_confidence": -0.1}, "model_confidence"),
        ({"model_confidence": math.nan}, "model_confidence"),
        ({"model_confidence": None}, "model_confidence"),
        ({"initial_priority": -1e-9}, "initial_priority"),
        ({"initial_priority": math.inf}, "initial_priority"),
        ({"final_answer": {1, 2}}, "final_answer"),
        ({"final_answer": math.nan}, "final_answer"),
        ({"metadata": []}, "metadata"),
        ({"metadata": None}, "metadata"),
        ({"metadata": {1: 2}}, "metadata"),
        ({"metadata": {"a": (1,)}}, "metadata"),
        ({"episode_id": 1}, "episode_id"),
        ({"step": -1}, "step"),
        ({"step": 1.0}, "step"),
        ({"step": True}, "step"),
        ({"step": 2**63}, "step"),
        ({"input_uri": 5}, "input_uri"),
        ({"input_sha256": bytes(31)}, "input_sha256"),
        ({"input_sha256": "0" * 32}, "input_sha256"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"timestamp": 2**63}, "timestamp"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_recorded_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidExperience) as refused:
        event_of(replace(GOOD, **change))
    assert refused.value.field == field
    assert field in str(refused.value)
    assert len(str(refused.value)) < 400


def test_only_an_experience_is_taken() -> None:
    with pytest.raises(InvalidExperience, match="must be a relive"):
        event_of({"visual": [1.0]})  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [1, np.float32(1), np.float64(1), np.int64(1), Fraction(1)])
def test_numbers_of_any_kind_are_taken(number: Any) -> None:
    event = event_of(replace(GOOD, total_reward=number, model_confidence=number))
    assert (event.total_reward, event.model_confidence) == (1.0, 1.0)
    assert type(event.total_reward) is float


def test_ids_are_1_to_512_bytes() -> None:
    for good in ("x", "x" * 512, "ü" * 256, "a/b c\n"):
        assert event_of(replace(GOOD, id=good)).experience_id == good


@given(st.lists(st.floats(-1e10, 1e10), min_size=1, max_size=8))
def test_float32_float64_and_lists_are_the_same_content(values: list[float]) -> None:
    single = np.array(values, np.float32)
    forms: list[Any] = [
        single,
        single.astype(np.float64),
        single.tolist(),
        single.astype(">f4"),
        np.repeat(single, 2)[::2],
    ]
    assert len({content_digest(event_of(replace(GOOD, visual=form))) for form in forms}) == 1


def test_the_callers_array_is_neither_kept_nor_modified() -> None:
    given = np.array([1.0, 2.0], np.float32)
    event = event_of(replace(GOOD, visual=given))
    given[0] = 9.0
    assert experience_from(event).visual == pytest.approx([1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        experience_from(event).visual[0] = 5.0  # type: ignore[index]


def test_fields_that_hold_each_others_bytes_are_other_content() -> None:
    a = replace(GOOD, question="ab", input_uri="c", episode_id=None)
    b = replace(GOOD, question="a", input_uri="bc", episode_id=None)
    c = replace(GOOD, question="ab", input_uri=None, episode_id="c")
    assert len({content_digest(event_of(e)) for e in (a, b, c)}) == 3


@given(
    st.builds(
        Row,
        partition=st.integers(0, 65_535),
        position=st.integers(0, 2**63),
        experience_id=st.text(min_size=1, max_size=20),
        event_time_us=st.integers(0, 2**63 - 1),
        ordinal=st.integers(0, 2**63),
        content=st.binary(min_size=16, max_size=16),
        total_reward=st.floats(allow_nan=False),
        model_confidence=st.floats(0, 1),
        given_priority=st.floats(),
        version=st.integers(0, 2**32 - 1),
        retrieval_count=st.integers(0, 2**32 - 1),
        success_count=st.integers(0, 2**32 - 1),
        outcome_count=st.integers(0, 2**32 - 1),
    )
)
def test_rows_come_back_from_their_bytes(row: Row) -> None:
    assert repr(unpack_row(row.partition, row.position, pack_row(row))) == repr(row)


@given(st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_an_embedding_is_taken_if_it_is_finite_and_not_too_long(numbers: list[float]) -> None:
    finite = all(map(math.isfinite, numbers))
    length = math.hypot(*numbers) if finite else math.inf
    assume(not 0.999e15 < length < 1.001e15)
    try:
        raw = embedding_bytes("visual", numbers, InvalidExperience)
    except InvalidExperience:
        assert length > 1e15
    else:
        assert length < 1e15
        assert raw == np.array(numbers, dtype="<f4").tobytes()
