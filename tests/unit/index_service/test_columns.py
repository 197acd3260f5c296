import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.priority import priority_at
from relive.core.row import Row
from relive.core.settings import PriorityWeights
from relive.index_service.columns import PriorityColumns
from relive.index_service.segments import RowKey

WEIGHTS = PriorityWeights()
NOW_US = 10**15


def row(partition: int, position: int, reward: float = 0.0, successes: int = 0) -> Row:
    return Row(
        partition=partition,
        position=position,
        experience_id=f"{partition}/{position}",
        event_time_us=NOW_US - position * 10**9,
        ordinal=position,
        content=bytes(16),
        total_reward=reward,
        model_confidence=0.5,
        given_priority=float("nan"),
        version=0,
        retrieval_count=2,
        success_count=successes,
        outcome_count=2,
    )


def assert_columns_hold(columns: PriorityColumns, live: dict[RowKey, Row]) -> None:
    priorities, key_of = columns.priorities(WEIGHTS, NOW_US)
    expected = [live[key] for key in sorted(live)]
    assert len(priorities) == len(expected)
    assert [key_of(at) for at in range(len(expected))] == sorted(live)
    for priority, r in zip(priorities.tolist(), expected, strict=True):
        alone = priority_at(WEIGHTS, r.ageless_priority(WEIGHTS), r.event_time_us, r.factor, NOW_US)
        assert priority == pytest.approx(alone, rel=1e-12)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 30), st.floats(0.0, 1.0)), max_size=12
    ),
    seed=st.integers(0, 2**32),
)
def test_columns_are_those_of_the_live_rows(steps: list[tuple[int, int, float]], seed: int) -> None:
    random = np.random.default_rng(seed)
    columns = PriorityColumns(3)
    live: dict[RowKey, Row] = {}
    position = 0
    for added, changed, removed in steps:
        new = []
        for _ in range(added):
            position += int(random.integers(1, 3))
            new.append(row(int(random.integers(0, 3)), position, float(random.random())))
        columns.extend(new, WEIGHTS)
        live.update({RowKey(r.partition, r.position): r for r in new})
        keys = sorted(live)
        for _ in range(changed if keys else 0):
            key = keys[int(random.integers(len(keys)))]
            live[key] = row(*key, float(random.random()), int(random.integers(0, 3)))
            columns.change(live[key], WEIGHTS)
        for at in random.permutation(len(keys))[: int(removed * len(keys))].tolist():
            columns.remove(live.pop(keys[at]))
        assert_columns_hold(columns, live)


def test_many_that_come_and_go_take_no_more_room_than_those_there_are() -> None:
    columns = PriorityColumns(1)
    live: dict[RowKey, Row] = {}
    for position in range(20_000):
        r = row(0, position)
        columns.extend([r], WEIGHTS)
        live[RowKey(0, position)] = r
        if position >= 50:
            columns.remove(live.pop(RowKey(0, position - 50)))
    assert_columns_hold(columns, live)
    assert len(columns._partitions[0].positions) <= 2_048


def test_a_row_that_was_never_added_is_not_removed_by_accident() -> None:
    columns = PriorityColumns(1)
    columns.extend([row(0, 5), row(0, 9)], WEIGHTS)
    for position in (4, 7, 10):
        with pytest.raises(AssertionError):
            columns.remove(row(0, position))


def test_no_rows_are_no_priorities() -> None:
    priorities, _ = PriorityColumns(2).priorities(WEIGHTS, NOW_US)
    assert priorities.tolist() == []
