"""Experiences that are not read or decoded yet: readers often look at few, or at ids only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relive.core.experience import Experience, experience_from
from relive.schemas import ExperienceRecorded, decode


@dataclass(frozen=True, slots=True)
class StoredExperience:
    """Makes an experience when it is called.

    Attributes:
        id: of the experience.
        record: the event that recorded it, as it is in the log.
        retrieval_count, success_count, success_rate, priority: see `Experience`.
    """

    id: str
    record: bytes
    retrieval_count: int
    success_count: int
    success_rate: float
    priority: float

    def __call__(self) -> Experience:
        event = decode(self.record)
        assert isinstance(event, ExperienceRecorded)
        return experience_from(
            event,
            retrieval_count=self.retrieval_count,
            success_count=self.success_count,
            success_rate=self.success_rate,
            priority=self.priority,
        )


@dataclass(frozen=True, slots=True)
class UnreadExperience:
    """Makes an experience when it is called.

    Attributes:
        read: reads it as it is stored.
    """

    read: Callable[[], StoredExperience]

    def __call__(self) -> Experience:
        return self.read()()
