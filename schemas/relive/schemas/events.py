"""The events of the log, as immutable values. Field order and names are those of the Avro schemas.

Embeddings are little-endian float32 bytes; nested documents (trajectory, final answer, metadata)
are JSON text, so that the schemas stay flat.

Named tuples and not frozen dataclasses: one of 17 fields takes 1 µs to make instead of 8, a quarter
of what decoding costs (docs/ARCHITECTURE.md, "Codec").
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

EVENT_ID_BYTES = 16


class ExperienceRecorded(NamedTuple):
    """A node met an input and acted."""

    event_id: bytes
    source: str
    event_time_us: int
    experience_id: str
    visual: bytes | None
    text: bytes | None
    question: str
    input_uri: str | None
    input_sha256: bytes | None
    trajectory: str
    total_reward: float
    final_answer: str
    model_confidence: float
    initial_priority: float | None
    episode_id: str | None
    step: int | None
    metadata: str


class OutcomeReported(NamedTuple):
    """How one use of an experience turned out.

    A last-writer-wins register: for one retrieval (or, without one, for one source) the outcome
    of the highest revision holds.
    """

    event_id: bytes
    source: str
    event_time_us: int
    experience_id: str
    retrieval_id: str | None
    success: bool
    reward: float | None
    revision: int


class ExperiencesRetrieved(NamedTuple):
    """A search or a sample returned these ids, all of one partition.

    `scores` holds similarities for a search and probabilities for a sample; `positions` the next
    position of every partition that the answer was computed at.
    """

    event_id: bytes
    source: str
    event_time_us: int
    retrieval_id: str
    kind: str
    experience_ids: tuple[str, ...]
    scores: tuple[float, ...]
    seed: int | None
    positions: tuple[int, ...]


class PriorityUpdated(NamedTuple):
    """A trainer's new priority, taken if the row still has the expected version.

    Written up to version 0.1; now it is `PrioritiesUpdated`.
    """

    event_id: bytes
    source: str
    event_time_us: int
    experience_id: str
    priority: float
    expected_version: int


class PrioritiesUpdated(NamedTuple):
    """A trainer's new priorities of rows of one partition, in the order they are taken in.

    The three columns are of one length; each entry is what a `PriorityUpdated` says.
    """

    event_id: bytes
    source: str
    event_time_us: int
    experience_ids: tuple[str, ...]
    priorities: tuple[float, ...]
    expected_versions: tuple[int, ...]


class ExperienceRetired(NamedTuple):
    """A person or a policy removed an experience."""

    event_id: bytes
    source: str
    event_time_us: int
    experience_id: str
    reason: str


class BufferCleared(NamedTuple):
    """Every experience of the partition was removed; one such record goes to every partition."""

    event_id: bytes
    source: str
    event_time_us: int
    reason: str


class SettingsChanged(NamedTuple):
    """The settings of the fold from here on; one such record goes to every partition.

    A dimension of None is not fixed yet: the first experience of the partition fixes it.
    """

    event_id: bytes
    source: str
    event_time_us: int
    reason: str
    capacity: int
    eviction_policy: str
    visual_dim: int | None
    text_dim: int | None
    confidence_weight: float
    reward_weight: float
    age_weight: float
    priority_floor: float
    half_life_s: float


Event: TypeAlias = (
    ExperienceRecorded
    | OutcomeReported
    | ExperiencesRetrieved
    | PriorityUpdated
    | PrioritiesUpdated
    | ExperienceRetired
    | BufferCleared
    | SettingsChanged
)

EVENT_TYPES: tuple[type[Event], ...] = (
    ExperienceRecorded,
    OutcomeReported,
    ExperiencesRetrieved,
    PriorityUpdated,
    PrioritiesUpdated,
    ExperienceRetired,
    BufferCleared,
    SettingsChanged,
)
