import math
from dataclasses import replace
from typing import Any

import pytest

from relive.core.settings import (
    MAX_DIM,
    PriorityWeights,
    Settings,
    checked_settings,
    settings_from,
)
from relive.errors import InvalidConfig
from relive.producers import Composer


def test_settings_come_back_from_their_event() -> None:
    settings = Settings(
        capacity=7,
        visual_dim=3,
        weights=PriorityWeights(confidence=0.0, reward=2.0, age=0.1, floor=0.5, half_life_s=60.0),
    )
    assert settings_from(Composer().settings(settings, 1, "created")) == settings


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity": 2}, "capacity"),
        ({"visual_dim": 0}, "visual_dim"),
        ({"text_dim": MAX_DIM + 1}, "text_dim"),
        ({"weights": PriorityWeights(confidence=-0.1)}, "priority confidence"),
        ({"weights": PriorityWeights(reward=math.nan)}, "priority reward"),
        ({"weights": PriorityWeights(age=math.inf)}, "priority age"),
        ({"weights": PriorityWeights(floor=0.0)}, "priority floor"),
        ({"weights": PriorityWeights(half_life_s=0.0)}, "priority half_life_s"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_settings_outside_their_range_are_refused_by_name(
    change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        checked_settings(replace(Settings(), **change), partitions=3)
    assert refused.value.field == field


def test_an_unknown_policy_is_refused_with_those_there_are() -> None:
    event = Composer().settings(Settings(), 1, "")._replace(eviction_policy="newest")
    with pytest.raises(InvalidConfig, match="one of oldest, lowest_priority"):
        settings_from(event)
