"""What reads and writes return: the same types from the embedded buffer and over RPC."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from relive.core.batch_columns import Columns, content_columns
from relive.core.experience import Experience
from relive.core.priority import FloatArray
from relive.core.stored_experience import StoredExperience, UnreadExperience
from relive.errors import InvalidQuery


@dataclass(frozen=True, slots=True)
class Token:
    """Says that an event is durable, and where.

    Attributes:
        id: of the experience.
        partition, position: of the event.
    """

    id: str
    partition: int
    position: int


# The next position of each partition: everything before it is included.
Positions: TypeAlias = Mapping[int, int]
MinPositions: TypeAlias = Token | Iterable[Token] | Positions


def positions_after(wanted: MinPositions | None) -> dict[int, int]:
    """The positions that include what is wanted: tokens of writes, or positions of another read."""
    if wanted is None:
        return {}
    if isinstance(wanted, Mapping):
        return dict(wanted)
    positions: dict[int, int] = {}
    for token in [wanted] if isinstance(wanted, Token) else wanted:
        after = token.position + 1
        positions[token.partition] = max(after, positions.get(token.partition, 0))
    return positions


def positions_of(partitions: Iterable[int], positions: Mapping[int, int]) -> dict[int, int]:
    """Those of some partitions."""
    return {p: positions[p] for p in partitions if p in positions}


class Hit:
    """One experience that a search returned.

    Attributes:
        id: of the experience.
        score: similarity, greater is nearer; see `relive.core.embedding`.
        position: of its record within its partition.
    """

    __slots__ = ("_experience", "id", "position", "score")

    def __init__(
        self,
        id: str,
        score: float,
        experience: Experience | Callable[[], Experience],
        position: int = 0,
    ) -> None:
        """
        Args:
            experience: or what makes it, called when it is first looked at.
        """
        self.id = id
        self.score = score
        self.position = position
        self._experience = experience

    @property
    def experience(self) -> Experience:
        """Its content and what had come of it at the time of the search."""
        if not isinstance(self._experience, Experience):
            self._experience = self._experience()
        return self._experience

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hit):
            return NotImplemented
        ours, theirs = (self.id, self.score), (other.id, other.score)
        return ours == theirs and self.experience == other.experience

    def __hash__(self) -> int:
        return hash((self.id, self.score))

    def __reduce__(self) -> tuple[object, ...]:
        return Hit, (self.id, self.score, self.experience, self.position)

    def __repr__(self) -> str:
        return f"Hit(id={self.id!r}, score={self.score!r})"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search returned, nearest first; equal scores, oldest first.

    Attributes:
        retrieval_id: cite it when reporting outcomes.
        hits: min(k, live) distinct live experiences.
        positions: the answer includes everything before these.
        epoch: of the index view.
        approximate: whether an approximate index took part.
        degraded: whether the CPU answered in place of a GPU that failed.
    """

    retrieval_id: str
    hits: tuple[Hit, ...]
    positions: Positions
    epoch: int = 0
    approximate: bool = False
    degraded: bool = False

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __getitem__(self, at: int) -> Hit:
        return self.hits[at]


class SampledItem:
    """One experience of a sample.

    Attributes:
        id: of the experience.
        probability: of being drawn in a single draw.
        weight: importance weight; the largest of the batch is 1.
        version: how many priority updates it has had; see `update_priorities`.
        position: of its record within its partition.
    """

    __slots__ = ("_experience", "id", "position", "probability", "version", "weight")

    def __init__(
        self,
        id: str,
        probability: float,
        weight: float,
        experience: Experience | Callable[[], Experience],
        version: int = 0,
        position: int = 0,
    ) -> None:
        """
        Args:
            experience: or what makes it, called when it is first looked at.
        """
        self.id = id
        self.probability = probability
        self.weight = weight
        self.version = version
        self.position = position
        self._experience = experience

    @property
    def experience(self) -> Experience:
        """Its content and what had come of it at the time of the sample."""
        if not isinstance(self._experience, Experience):
            self._experience = self._experience()
        return self._experience

    @property
    def stored(self) -> StoredExperience | None:
        """The experience as it is stored, while it is not made of that yet."""
        if isinstance(self._experience, UnreadExperience):
            self._experience = self._experience.read()
        return self._experience if isinstance(self._experience, StoredExperience) else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampledItem):
            return NotImplemented
        return self._drawn() == other._drawn() and self.experience == other.experience

    def __hash__(self) -> int:
        return hash(self._drawn())

    def __reduce__(self) -> tuple[object, ...]:
        drawn = (self.id, self.probability, self.weight)
        return SampledItem, (*drawn, self.experience, self.version, self.position)

    def __repr__(self) -> str:
        return (
            f"SampledItem(id={self.id!r}, probability={self.probability!r}, weight={self.weight!r})"
        )

    def _drawn(self) -> tuple[str, float, float, int]:
        return self.id, self.probability, self.weight, self.version


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """What a sample returned, in order of drawing.

    Attributes:
        retrieval_id: cite it when reporting outcomes.
        items: the experiences; None if their content was not asked for.
        positions: the answer includes everything before these.
        seed: gives the same batch again at the same positions and time.
        now: the time of the priorities, seconds since the epoch. With an `alpha` other than 0 and
            1, the time asked for rounded down to a tick, 1/256 of a half-life.
        epoch, degraded: as for a search.
        ids: of the experiences.
        probabilities, weights, priorities: float64 arrays of shape (len(batch),).
        versions: uint32 array; see `SampledItem`.
        log_mass: natural logarithm of the sum that the probabilities are shares of; see
            `relive.core.sampling`. None where nothing was drawn.
    """

    retrieval_id: str
    items: tuple[SampledItem, ...] | None
    positions: Positions
    seed: int
    now: float
    epoch: int = 0
    degraded: bool = False
    ids: Sequence[str] = ()
    probabilities: FloatArray = field(default_factory=lambda: np.zeros(0), compare=False)
    weights: FloatArray = field(default_factory=lambda: np.zeros(0), compare=False)
    priorities: FloatArray = field(default_factory=lambda: np.zeros(0), compare=False)
    versions: npt.NDArray[np.uint32] = field(
        default_factory=lambda: np.zeros(0, dtype=np.uint32), compare=False
    )

    @property
    def columns(self) -> Columns:
        """The batch as arrays of one entry an experience, which torch and JAX take as they are.

        `id`, `probability`, `weight`, `priority` and `version`, and, where content was asked for,
        what `relive.core.batch_columns` makes of it.
        """
        drawn: Columns = {
            "id": np.array(self.ids, dtype=np.object_),
            "probability": self.probabilities,
            "weight": self.weights,
            "priority": self.priorities,
            "version": self.versions,
        }
        if self.items is not None:
            drawn.update(content_columns([item.experience for item in self.items]))
        return drawn

    log_mass: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[SampledItem]:
        return iter(self._items())

    def __getitem__(self, at: int) -> SampledItem:
        return self._items()[at]

    def _items(self) -> tuple[SampledItem, ...]:
        if self.items is None:
            raise InvalidQuery("content", False, "the sample was asked for without its content")
        return self.items


class StateSource(StrEnum):
    """What a state was recovered from; the log's tail is folded on top of it."""

    STORE = "store"
    SNAPSHOT = "snapshot"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening found, and what it did.

    Attributes:
        source: where the state was taken from.
        positions: that state included everything before these.
        passed_over: states that were of no use, and why; empty where nothing was wrong.
        events_replayed: folded on top of it, up to the log's end.
        seconds: all of this took.
    """

    source: StateSource
    positions: Positions
    passed_over: tuple[str, ...]
    events_replayed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GpuStats:
    """The GPU that searches the index, and its worker.

    Attributes:
        state: `serving`, or else why the CPU answers: `unavailable` (there is none), `waiting`
            (the index has no lists yet), `loading`, `open` (it failed, and is tried again).
        device: its name; empty until a worker has said it.
        failures: times that a worker did not do what it should, since this process started.
        restarts: workers that took the place of one that failed.
        last_failure: the last one, or why there is no GPU; None if nothing went wrong.
    """

    state: str
    device: str
    failures: int
    restarts: int
    last_failure: str | None


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far the building of an index is.

    Attributes:
        phase: what is going on, in words.
        done, total: steps of this phase, most often rows; 0 of 0 where nobody can tell.
        share: of the whole build, 0 to 1, by what each phase usually takes; never falls.
    """

    phase: str
    done: int
    total: int
    share: float


@dataclass(frozen=True, slots=True)
class IndexStats:
    """The index that searches look into, and its rebuilding.

    Attributes:
        lists: of rows near each other, that a search looks into; 0 where all rows are scanned.
        recall: share of the true ten nearest that the lists were measured to give, when they were
            built, of the kind of query that fared worst; 1.0 where all rows are scanned.
        unlisted: rows that are scanned by every search.
        building: whether one is being built.
        builds, failures: since this process started.
        last_seconds: that the last build took; None before the first.
        last_failure: why the last build or opening that failed did so; None if none did.
        gpu: that searches it; None where none is wanted.
        progress: how far the one that is being built is; None if none is.
        unfit: of the unlisted rows, those that are unlike all that the lists were made of: these
            would miss them.
    """

    lists: int
    recall: float
    unlisted: int
    building: bool
    builds: int
    failures: int
    last_seconds: float | None
    last_failure: str | None
    gpu: GpuStats | None = None
    progress: BuildProgress | None = None
    unfit: int = 0


@dataclass(frozen=True, slots=True)
class BufferStats:
    """What is in a buffer and what happened to it.

    Attributes:
        size: live experiences.
        capacity: most experiences kept.
        additions, retrievals, outcomes, evictions, removals: since the log began; survive
            reopening and clearing.
        parked: outcomes waiting for their experience.
        orphans: outcomes and retrievals without an experience.
        quarantined: events set aside because they could not be folded.
        conflicts: experiences recorded again with other content.
        index_size: experiences that a search can find.
        retrievals_lost: retrieval events that were not recorded because the log did not keep up.
        epoch: of the index view.
        positions: all of this includes everything before these.
        digest: equal for equal states; see docs/ARCHITECTURE.md, "Digest".
        backend: what searches the index now: `numpy`, `faiss` or `faiss-gpu`.
        payload_bytes: of the records of live experiences that are committed, each kept once.
        state_bytes: that the state's files take. Both are 0 for a state in memory.
        snapshot_bytes: that snapshots take beyond what they share with the state by hard links.
        recovery: what opening found and did; None before it has ended.
        index: what searches look into; None from a service that does not say.
        calls_shed: that this service refused because it had too many; 0 for an embedded buffer.
        priority_updates, stale_updates, unknown_updates: priorities from trainers that were taken,
            of a version that was no longer, of no live experience.
        log: its identity.
        partition_digests: of the state of each partition; `digest` sums them up.
    """

    size: int
    capacity: int
    additions: int
    retrievals: int
    outcomes: int
    evictions: int
    removals: int
    parked: int
    orphans: int
    quarantined: int
    conflicts: int
    index_size: int
    retrievals_lost: int
    epoch: int
    positions: Positions
    digest: str
    backend: str
    payload_bytes: int
    state_bytes: int
    snapshot_bytes: int
    recovery: Recovery | None = None
    index: IndexStats | None = None
    calls_shed: int = 0
    priority_updates: int = 0
    stale_updates: int = 0
    unknown_updates: int = 0
    log: str = ""
    partition_digests: Mapping[int, str] = field(default_factory=dict)
