"""What is looked at of an engine, beside what its reads say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from relive.consumers import MemoryStore
from relive.core.experience import Experience
from relive.core.filter import Filter
from relive.index_service import Engine, looks
from relive.index_service.segments import RowKey
from relive.log.memory import MemoryLog
from relive.producers.compose import Composer, keyed_record

NOW_US = 2_000_000_000_000_000


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Over thirty experiences of three partitions, half of them with an outcome."""
    log, composer = MemoryLog(3), Composer("test")
    events = [
        composer.experience(
            Experience(
                id=f"x{i}",
                visual=np.eye(4)[i % 4] + i / 100,
                total_reward=float(i),
                metadata={"even": i % 2 == 0},
                timestamp=1_000_000 + i,
            )
        )
        for i in range(30)
    ]
    outcomes = [composer.outcome("r", f"x{i}", success=i % 4 == 0) for i in range(0, 30, 2)]
    log.append([keyed_record(event, 3) for event in events])
    log.append([keyed_record(event, 3) for event in outcomes])
    engine = Engine(log, MemoryStore())
    engine.catch_up()
    yield engine
    engine.close()


def test_priorities_are_those_that_reads_give(engine: Engine) -> None:
    engine._clock_us = lambda: NOW_US
    found = engine.looks.priorities(NOW_US)
    known = [engine.get(each) for each in engine.ids()]
    expected = np.sort([each.priority or 0.0 for each in known if each is not None])
    assert found.live == 30
    assert np.sort(found.values) == pytest.approx(expected)


def test_of_many_rows_some_are_taken_that_are_spread_over_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "MOST_ROWS", 4)
    found = engine.looks.priorities(NOW_US)
    assert found.live == 30
    assert 9 <= len(found.values) < 30
    assert len(engine.looks.outcomes().success_rate) < 30


def test_outcomes_are_those_of_the_rows(engine: Engine) -> None:
    times, rates = engine.looks.outcomes()
    by_time = dict(zip(times.tolist(), rates.tolist(), strict=True))
    for i in range(30):
        rate = by_time[1_000_000 + i]
        assert np.isnan(rate) if i % 2 else rate == (i % 4 == 0)
    known, rate = engine.success_rate()
    assert known == 15
    assert rate == pytest.approx(8 / 15)


def test_a_view_is_of_what_a_filter_lets_through(engine: Engine) -> None:
    assert engine.looks.view().size == 30
    assert engine.looks.view(Filter(where={"even": True}, max_reward=10.0)).size == 6


def test_rows_and_records_are_found_by_their_keys(engine: Engine) -> None:
    keys = [key for segment in engine.looks.view().segments for key in segment.live_keys()]
    rows = engine.looks.rows([*keys, RowKey(0, 999)])
    assert rows[-1] is None
    assert {row.experience_id for row in rows[:-1] if row} == {f"x{i}" for i in range(30)}
    records = engine.looks.records([*keys, RowKey(0, 999)])
    assert len(records) == 30
    assert all(row.experience_id == event.experience_id for row, event in records)
