"""The settings that the fold depends on. They reach it only through `SettingsChanged` events."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import StrEnum

from relive.errors import InvalidConfig
from relive.schemas.events import SettingsChanged

WEEK_S = 7 * 24 * 3600.0

# Keeps one typing error from asking for a matrix of terabytes.
MAX_DIM = 65_536


class EvictionPolicy(StrEnum):
    """Which experience gives way when a partition is full."""

    OLDEST = "oldest"
    LOWEST_PRIORITY = "lowest_priority"


@dataclass(frozen=True, slots=True)
class PriorityWeights:
    """The weights of the priority formula (see `relive.core.priority`).

    Attributes:
        confidence: weight of 1 - model confidence.
        reward: weight of |total reward|.
        age: weight of the age term, which falls from 0 to -1.
        floor: no priority is lower.
        half_life_s: seconds after which the age term has fallen to -0.5.
    """

    confidence: float = 0.4
    reward: float = 0.4
    age: float = 0.2
    floor: float = 0.01
    half_life_s: float = WEEK_S


@dataclass(frozen=True, slots=True)
class Settings:
    """What the fold needs to know beyond the events.

    Attributes:
        capacity: experiences kept over all partitions; each partition keeps its share.
        eviction_policy: which one goes first.
        visual_dim, text_dim: dimensions; None until the first such embedding fixes it.
        weights: of the priority formula.
    """

    capacity: int = 10_000
    eviction_policy: EvictionPolicy = EvictionPolicy.OLDEST
    visual_dim: int | None = None
    text_dim: int | None = None
    weights: PriorityWeights = field(default_factory=PriorityWeights)


def checked_settings(settings: Settings, partitions: int) -> Settings:
    """The same settings.

    Raises:
        InvalidConfig: a value is outside its range, or the capacity is below the partitions.
    """
    if settings.capacity < partitions:
        raise InvalidConfig(
            "capacity", settings.capacity, f"at least one experience per partition ({partitions})"
        )
    for name in ("visual_dim", "text_dim"):
        dim = getattr(settings, name)
        if dim is not None and not 1 <= dim <= MAX_DIM:
            raise InvalidConfig(name, dim, f"dimensions are 1 to {MAX_DIM}")
    weights = settings.weights
    for weight in fields(PriorityWeights):
        value = getattr(weights, weight.name)
        if not math.isfinite(value) or value < 0:
            raise InvalidConfig(f"priority {weight.name}", value, "must be finite and at least 0")
    if weights.half_life_s == 0:
        raise InvalidConfig("priority half_life_s", 0.0, "must be above 0")
    if weights.floor == 0:
        raise InvalidConfig("priority floor", 0.0, "must be above 0, or nothing could be sampled")
    return settings


def settings_from(event: SettingsChanged) -> Settings:
    """The settings that an event announces.

    Raises:
        InvalidConfig: the eviction policy is unknown.
    """
    try:
        policy = EvictionPolicy(event.eviction_policy)
    except ValueError as error:
        known = ", ".join(EvictionPolicy)
        raise InvalidConfig("eviction_policy", event.eviction_policy, f"one of {known}") from error
    return Settings(
        capacity=event.capacity,
        eviction_policy=policy,
        visual_dim=event.visual_dim,
        text_dim=event.text_dim,
        weights=PriorityWeights(
            confidence=event.confidence_weight,
            reward=event.reward_weight,
            age=event.age_weight,
            floor=event.priority_floor,
            half_life_s=event.half_life_s,
        ),
    )
