"""Making events, and addressing them to partitions."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from relive.core.experience import Experience, checked_id, checked_text, finite, recorded_event
from relive.core.partition import partition_of
from relive.core.priority_update import NewPriority
from relive.core.settings import Settings, checked_settings
from relive.errors import InvalidExperience
from relive.log import NewRecord
from relive.producers.random_ids import random_id
from relive.schemas import (
    BufferCleared,
    Event,
    ExperienceRecorded,
    ExperienceRetired,
    ExperiencesRetrieved,
    OutcomeReported,
    PrioritiesUpdated,
    SettingsChanged,
    encode,
)

# Of 512 bytes each, the longest there are, they take three quarters of what a record may.
_IDS_PER_RECORD = 1_500


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000


def new_source() -> str:
    """A name for this producer instance, unlike any other's."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"


def new_id() -> str:
    """A unique id for an experience or a retrieval."""
    return random_id().hex()


@dataclass(frozen=True)
class Composer:
    """Makes the events of one source.

    Attributes:
        source: names the producer instance in every event.
    """

    source: str = field(default_factory=new_source)

    def experience(self, experience: Experience) -> ExperienceRecorded:
        """The event that records an experience; it gets an id if it has none.

        Raises:
            InvalidExperience: see `Experience`.
        """
        return recorded_event(
            experience,
            event_id=random_id(),
            source=self.source,
            new_id=new_id,
            now_us=now_us(),
        )

    def outcome(
        self,
        retrieval_id: str | None,
        experience_id: str,
        *,
        success: bool,
        reward: float | None = None,
        revision: int | None = None,
    ) -> OutcomeReported:
        """The event that reports an outcome; by default the latest report wins.

        Raises:
            InvalidExperience: an id, the reward or the revision is not acceptable.
        """
        if not isinstance(success, bool):
            raise InvalidExperience("success", success, "must be True or False")
        at = now_us()
        return OutcomeReported(
            event_id=random_id(),
            source=self.source,
            event_time_us=at,
            experience_id=checked_id("experience_id", experience_id),
            retrieval_id=None if retrieval_id is None else checked_id("retrieval_id", retrieval_id),
            success=success,
            reward=None if reward is None else finite("reward", reward),
            revision=at if revision is None else _revision(revision),
        )

    def priorities(
        self, updates: Sequence[NewPriority], partitions: int
    ) -> list[tuple[PrioritiesUpdated, NewRecord]]:
        """The events that give experiences priorities, and their records, by partition touched.

        One for each, or more where the ids would not fit into one.

        Args:
            updates: checked, by `relive.core.priority_update`.
        """

        def home(update: NewPriority) -> int:
            return partition_of(update.experience_id, partitions)

        made = []
        for partition, group in groupby(sorted(updates, key=home), key=home):
            mine = list(group)
            for start in range(0, len(mine), _IDS_PER_RECORD):
                columns = zip(*mine[start : start + _IDS_PER_RECORD], strict=True)
                event = PrioritiesUpdated(random_id(), self.source, now_us(), *columns)
                made.append((event, NewRecord(partition, b"", encode(event))))
        return made

    def retired(self, experience_id: str, reason: str) -> ExperienceRetired:
        """The event that removes an experience."""
        return ExperienceRetired(
            random_id(),
            self.source,
            now_us(),
            checked_id("id", experience_id),
            checked_text("reason", reason),
        )

    def cleared(self, reason: str) -> BufferCleared:
        """The event that clears a partition."""
        return BufferCleared(random_id(), self.source, now_us(), checked_text("reason", reason))

    def settings(self, settings: Settings, partitions: int, reason: str) -> SettingsChanged:
        """The event that puts settings in force for a partition.

        Raises:
            InvalidConfig: see `checked_settings`.
        """
        checked = checked_settings(settings, partitions)
        return SettingsChanged(
            event_id=random_id(),
            source=self.source,
            event_time_us=now_us(),
            reason=reason,
            capacity=checked.capacity,
            eviction_policy=checked.eviction_policy.value,
            visual_dim=checked.visual_dim,
            text_dim=checked.text_dim,
            confidence_weight=checked.weights.confidence,
            reward_weight=checked.weights.reward,
            age_weight=checked.weights.age,
            priority_floor=checked.weights.floor,
            half_life_s=checked.weights.half_life_s,
        )

    def settings_records(self, settings: Settings, partitions: int, reason: str) -> list[NewRecord]:
        """The records that put settings in force, one for every partition.

        Raises:
            InvalidConfig: see `checked_settings`.
        """
        return everywhere([self.settings(settings, partitions, reason) for _ in range(partitions)])

    def retrievals(
        self,
        retrieval_id: str,
        kind: str,
        scored_ids: Sequence[tuple[str, float]],
        positions: Mapping[int, int],
        partitions: int,
        seed: int | None = None,
        at_us: int | None = None,
    ) -> list[NewRecord]:
        """The records that say what a search or a sample returned, by partition touched.

        One for each, or more where the ids would not fit into one. Their event time is that of the
        priorities they were drawn by (`at_us`), now by default.
        """

        def home(scored: tuple[str, float]) -> int:
            return partition_of(scored[0], partitions)

        at = now_us() if at_us is None else at_us
        read = tuple(positions.get(partition, 0) for partition in range(partitions))
        records = []
        for partition, group in groupby(sorted(scored_ids, key=home), key=home):
            mine = list(group)
            for start in range(0, len(mine), _IDS_PER_RECORD):
                ids, scores = zip(*mine[start : start + _IDS_PER_RECORD], strict=True)
                event = ExperiencesRetrieved(
                    random_id(), self.source, at, retrieval_id, kind, ids, scores, seed, read
                )
                records.append(NewRecord(partition, b"", encode(event)))
        return records


def keyed_record(
    event: ExperienceRecorded | OutcomeReported | ExperienceRetired,
    partitions: int,
) -> NewRecord:
    """The record of an event about one experience, in the experience's partition."""
    key = event.experience_id
    return NewRecord(partition_of(key, partitions), key.encode("utf-8"), encode(event))


def everywhere(events: Sequence[Event]) -> list[NewRecord]:
    """One record per partition, of one event for each."""
    return [NewRecord(partition, b"", encode(event)) for partition, event in enumerate(events)]


def _revision(revision: int) -> int:
    if isinstance(revision, bool) or not isinstance(revision, int) or abs(revision) >= 2**62:
        raise InvalidExperience("revision", revision, "must be a whole number below 2**62")
    return revision
