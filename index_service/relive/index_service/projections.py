"""What readers look into, made of the state and kept where the fold is: the index and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from relive.consumers import Materializer
from relive.core.embedding import EmbeddingSpace, Float32Array, HybridMode, Metric
from relive.core.experience import vector_from
from relive.core.fold import Added, Change, Cleared, Removed, SettingsAdopted, Updated
from relive.core.row import Row, priority_inputs
from relive.core.state import PartitionState
from relive.errors import ConsumerStopped, IndexDamaged, StateDamaged
from relive.index_service.columns import PriorityColumns
from relive.index_service.episodes import Episodes
from relive.index_service.filter_columns import FilterColumns
from relive.index_service.filtering import Filtering
from relive.index_service.index import Index
from relive.index_service.indexing import Indexing, ListOptions
from relive.index_service.payload_embeddings import embeddings_of
from relive.index_service.sampling_limits import SamplingLimits
from relive.index_service.scan import IndexArray, Scanner
from relive.index_service.segments import RowKey
from relive.index_service.view import View
from relive.schemas import ExperienceRecorded

# Few enough that what is read of them stays in the cache.
_LOAD_ROWS = 256


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How embeddings are compared.

    Attributes:
        metric, mode, visual_weight, text_weight: see `relive.core.embedding`.
        record_retrievals: whether searches and samples become events.
        limits: on what is sampled.
        lists: how indices are built.
    """

    metric: Metric = Metric.COSINE
    mode: HybridMode = HybridMode.WEIGHTED
    visual_weight: float = 0.7
    text_weight: float = 0.3
    record_retrievals: bool = True
    limits: SamplingLimits = field(default_factory=SamplingLimits)
    lists: ListOptions = field(default_factory=ListOptions)


class Projections:
    """The read models of one engine. Written under the fold's lock.

    Args:
        materializer: of the state.
        log: the identity of the log.
        options: how embeddings are compared.
        scanner: searches rows.
        owner: whether this process publishes indices.

    Attributes:
        indexing: the index, with what keeps it good.
        columns: of priorities; replaced as a whole when they are loaded anew.
        filtering: says which rows match a filter.
    """

    def __init__(
        self,
        materializer: Materializer,
        log: str,
        options: IndexOptions,
        scanner: Scanner,
        *,
        owner: bool,
    ) -> None:
        self._materializer = materializer
        self._options = options
        self.indexing = Indexing(
            options.lists,
            log,
            scanner,
            materializer.locked,
            self.replace_damaged,
            owner=owner,
        )
        self.columns = self._no_columns()
        self.filtering = Filtering(materializer)
        self._episodes: Episodes | None = None

    def load(self) -> None:
        """Build index and columns anew from the state, then put them in place of the old ones.

        Rows that the published index has are taken from there.
        """
        with self._materializer.locked() as states:
            space = self.space_of(states)
            base, manifest = self.indexing.published(space) or (None, None)
            epoch = self.indexing.view.epoch if manifest is None else manifest.epoch
            index = Index(space, max(epoch, self.indexing.view.epoch), base)
            columns = self._no_columns()
            filter_columns = FilterColumns(self._materializer.positions())
            for state in states:
                positions = _load_columns(state, columns, filter_columns)
                _load_embeddings(state, index, positions)
            index.apply([], _index_rows(index, []), [], self._materializer.positions())
            self.columns, self._episodes = columns, None
            self.filtering.columns = filter_columns  # before the view, as in `follow`
            self.indexing.replace(index, manifest)

    def replace_damaged(self, view: View, error: IndexDamaged) -> None:
        """Go on without a published index whose files are not what was written."""
        with self._materializer.locked():
            if self.indexing.view is view or self.indexing.view.epoch == view.epoch:
                self.indexing.discard(error)
                self.load()

    def follow(self, changes: Sequence[Change], positions: Mapping[int, int]) -> None:
        """Bring index and columns to where the fold is. Called under the fold's lock."""
        states = self._materializer.states
        space = self.space_of(states)
        if space != self.indexing.view.space or any(
            isinstance(change, Cleared | SettingsAdopted) for change in changes
        ):
            # Rare and wholesale: start over from the state, which has all of it.
            self.load()
            return
        self.filtering.columns.follow(changes, self.indexing.view.positions)
        if self._episodes is not None:
            self._episodes.follow(changes)
        added = [change for change in changes if isinstance(change, Added)]
        gone = [change.row for change in changes if isinstance(change, Removed)]
        weights = [state.settings.weights for state in states]
        self.columns.extend([change.row for change in added], weights)
        updated = [change.row for change in changes if isinstance(change, Updated)]
        self.columns.change(updated, weights)
        self.columns.remove(gone)
        index = self.indexing.index
        index.apply(
            _keys([change.row for change in added]),
            _index_rows(index, [change.event for change in added]),
            _keys(gone),
            positions,
        )
        self.indexing.followed()

    def episodes(self) -> Episodes:
        """Which row is which step: read when it is first asked for, then kept up to date."""
        if self._episodes is None:
            self._episodes = Episodes.of(self._materializer.states)
        return self._episodes

    def space_of(self, states: Sequence[PartitionState]) -> EmbeddingSpace:
        return self.space(
            _agreed("visual_dim", [s.settings.visual_dim for s in states]),
            _agreed("text_dim", [s.settings.text_dim for s in states]),
        )

    def space(self, visual_dim: int, text_dim: int) -> EmbeddingSpace:
        options = self._options
        return EmbeddingSpace(
            visual_dim,
            text_dim,
            metric=options.metric,
            mode=options.mode,
            visual_weight=options.visual_weight,
            text_weight=options.text_weight,
        )

    def _no_columns(self) -> PriorityColumns:
        limits, partitions = self._options.limits, len(self._materializer.states)
        return PriorityColumns(partitions, limits.max_times_sampled)


def _load_columns(
    state: PartitionState, columns: PriorityColumns, filter_columns: FilterColumns
) -> IndexArray:
    """Give columns a partition's rows; returns the positions of all of them, rising."""
    seen = [np.empty(0, dtype=np.int64)]
    for some in state.packed_rows(_LOAD_ROWS):
        positions = np.array(some.positions, dtype=np.int64)
        columns.load(
            state.partition, positions, priority_inputs(some.packed, state.settings.weights)
        )
        filter_columns.load(state.partition, positions, some.packed)
        seen.append(positions)
    return np.concatenate(seen)


def _load_embeddings(state: PartitionState, index: Index, positions: IndexArray) -> None:
    """Give an index a partition's rows: those that it does not have are made of the records.

    Args:
        positions: of all the rows, rising.
    """
    had = index.keep(state.partition, positions)
    # Those that are newer than all it has are read together, which is much faster.
    newest = int(np.flatnonzero(had)[-1]) + 1 if had.any() else 0
    for at in np.flatnonzero(~had[:newest]):
        payload = state.payload(int(positions[at]))
        if payload is None:
            raise StateDamaged(f"partition {state.partition}: no record at {positions[at]}")
        embeddings = embeddings_of([payload], index.view.space)
        index.load(state.partition, positions[at : at + 1], embeddings)
    if newest < len(positions):
        for some in state.recorded(_LOAD_ROWS, int(positions[newest])):
            embeddings = embeddings_of(some.payloads, index.view.space)
            index.load(state.partition, np.array(some.positions, dtype=np.int64), embeddings)


def _keys(rows: Sequence[Row]) -> list[RowKey]:
    return [RowKey(row.partition, row.position) for row in rows]


def _index_rows(index: Index, events: Sequence[ExperienceRecorded]) -> Float32Array:
    return index.view.space.rows(
        [vector_from(event.visual) for event in events],
        [vector_from(event.text) for event in events],
    )


def _agreed(name: str, dims: Sequence[int | None]) -> int:
    """The one dimension that the partitions have fixed; 0 while none has."""
    fixed = sorted({dim for dim in dims if dim is not None})
    if len(fixed) > 1:
        raise ConsumerStopped(
            f"{name}: the partitions hold experiences of different dimensions {fixed}; "
            "a log of several partitions needs its dimensions set when it is made"
        )
    return fixed[0] if fixed else 0
