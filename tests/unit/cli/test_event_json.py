"""Every event has a form in JSON, and comes back from it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from relive.cli.event_json import event_from_json, event_to_json
from relive.cli.output import to_json
from relive.core.experience import Experience
from relive.core.priority_update import NewPriority
from relive.core.settings import Settings
from relive.errors import InvalidExperience
from relive.producers import Composer
from relive.schemas import Event, ExperienceRecorded, PriorityUpdated, decode

COMPOSER = Composer("test")
RECORDED = COMPOSER.experience(
    Experience(
        id="x",
        visual=[0.1, 2.0],
        trajectory=[{"action": 1}],
        final_answer={"a": [1.5, None]},
        metadata={"ü": True},
        input_sha256=bytes(range(32)),
        step=3,
    )
)
EVENTS: list[Event] = [
    RECORDED,
    COMPOSER.outcome("r", "x", success=True, reward=0.5),
    COMPOSER.outcome(None, "x", success=False),
    decode(COMPOSER.retrievals("r", "search", [("x", 0.5), ("y", 0.25)], {0: 3}, 1)[0].value),
    PriorityUpdated(bytes(16), "test", 1, "x", 2.5, 0),
    COMPOSER.priorities([NewPriority("x", 2.5, 0), NewPriority("y", 0.0, 3)], 1)[0][0],
    COMPOSER.retired("x", "old"),
    COMPOSER.cleared("test"),
    COMPOSER.settings(Settings(visual_dim=3), 1, "test"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_its_form(event: Event) -> None:
    assert event_from_json(to_json(event_to_json(event))) == event


def test_what_a_bad_producer_wrote_is_shown_too() -> None:
    bad = RECORDED._replace(
        visual=b"\x01\x02\x03", metadata="{not JSON", total_reward=math.nan, text=b""
    )
    shown = json.loads(to_json(event_to_json(bad)))
    assert shown["visual"] == {"hex": "010203"}
    assert shown["text"] == {"hex": ""}
    assert shown["metadata"] == "{not JSON"
    assert shown["total_reward"] == "nan"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "Unknown"}, "type"),
        ({"type": None}, "type"),
        ({"extra": 1}, "extra"),
        ({"visual": "abc"}, "visual"),
        ({"input_sha256": "xyz"}, "input_sha256"),
        ({"event_id": 5}, "event_id"),
        ({"total_reward": "nan"}, "event"),
        ({"step": "3"}, "event"),
        ({"question": 7}, "event"),
        ({"step": 2**70}, "event"),
    ],
)
def test_a_repair_that_is_no_event_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidExperience) as refused:
        event_from_json(to_json(event_to_json(RECORDED) | change))
    assert refused.value.field == field


def test_a_missing_field_is_named_but_the_event_id_may_be_missing() -> None:
    shown = event_to_json(RECORDED)
    del shown["event_id"]
    event = event_from_json(to_json(shown))
    assert isinstance(event, ExperienceRecorded)
    assert event._replace(event_id=RECORDED.event_id) == RECORDED
    del shown["question"]
    with pytest.raises(InvalidExperience, match="question: an ExperienceRecorded needs it"):
        event_from_json(to_json(shown))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\ud800"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidExperience):
        event_from_json(text)
