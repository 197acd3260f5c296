"""Index and columns built at once from a state are those that follow it event by event."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.consumers import MemoryStore
from relive.core.embedding import HybridMode, Metric
from relive.core.experience import Experience
from relive.core.settings import Settings
from relive.index_service import Engine, IndexOptions, segments
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import keyed_record

COMPOSER = Composer("test")


class KeptStore(MemoryStore):
    """Outlives its engine."""

    def close(self) -> None:
        pass


def rows_of(engine: Engine) -> list[tuple[int, int, bytes]]:
    """Every live index row, with its place in the log."""
    found = []
    for segment in engine._indexing.view.segments:
        for at in segment.live_rows():
            chunk = segment.chunk
            row = chunk.matrix[at].tobytes()
            found.append((int(chunk.partitions[at]), int(chunk.positions[at]), row))
    return sorted(found)


def columns_of(engine: Engine) -> list[list[bytes]]:
    """The live priority inputs, column by column."""
    return [
        [
            column[columns.live()].tobytes()
            for column in (
                columns.positions,
                columns.event_time_us,
                columns.ageless,
                columns.factor,
                columns.version,
                np.array(columns.ids.take(np.arange(columns.count))),
            )
        ]
        for columns in engine._projections.columns.partitions
    ]


@settings(max_examples=25)
@given(
    metric=st.sampled_from(Metric),
    mode=st.sampled_from(HybridMode),
    partitions=st.integers(1, 2),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["visual", "text", "both", "outcome", "retire", "zero"]),
            st.integers(0, 20),
            st.floats(-3, 3, width=32),
        ),
        max_size=40,
    ),
)
def test_a_loaded_index_is_to_the_bit_the_one_that_followed(
    metric: Metric, mode: HybridMode, partitions: int, steps: list[tuple[str, int, float]]
) -> None:
    log = MemoryLog(partitions)
    log.append(COMPOSER.settings_records(Settings(8, visual_dim=5, text_dim=5), partitions, ""))
    options = IndexOptions(metric=metric, mode=mode, record_retrievals=False)
    store = KeptStore()
    engine = Engine(log, store, options, clock_us=lambda: 0)
    for step, (kind, number, value) in enumerate(steps):
        random = np.random.default_rng(step)
        event: Any
        if kind == "outcome":
            event = COMPOSER.outcome(f"r{step}", f"x{number}", success=value > 0)
        elif kind == "retire":
            event = COMPOSER.retired(f"x{number}", "")
        else:
            vector = np.zeros(5) if kind == "zero" else random.standard_normal(5)
            event = COMPOSER.experience(
                Experience(
                    id=f"x{step}",
                    visual=None if kind == "text" else vector,
                    text=None if kind == "visual" else vector[::-1],
                    total_reward=value,
                    initial_priority=abs(value) if number % 5 == 0 else None,
                    timestamp=step,
                )
            )
        log.append([keyed_record(event, partitions)])
        engine.catch_up()
    engine.flush()
    loaded = Engine(log, store, options, clock_us=lambda: 0)

    assert rows_of(loaded) == rows_of(engine)
    assert columns_of(loaded) == columns_of(engine)
    assert loaded._indexing.view.size == engine._indexing.view.size
    assert loaded._indexing.view.positions == engine._indexing.view.positions
    loaded.close()
    engine.close()


def test_more_rows_than_a_chunk_holds_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "CHUNK_ROWS", 100)
    log, store = MemoryLog(), KeptStore()
    for n in range(730):
        event = COMPOSER.experience(Experience(id=f"x{n}", visual=[1.0, float(n)]))
        log.append([keyed_record(event, 1)])
    engine = Engine(log, store, IndexOptions(record_retrievals=False))
    engine.start()
    engine.flush()
    loaded = Engine(log, store, IndexOptions(record_retrievals=False))
    assert len(rows_of(loaded)) == 730
    assert rows_of(loaded) == rows_of(engine)
    # Rows that were loaded can go.
    for n in range(0, 730, 3):
        log.append([keyed_record(COMPOSER.retired(f"x{n}", ""), 1)])
    loaded.catch_up()
    assert len(rows_of(loaded)) == len(loaded) == 730 - 244
    loaded.close()
    engine.close()
