import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.priority import priority_at
from relive.core.row import Row
from relive.core.settings import PriorityWeights
from relive.index_service.columns import PriorityColumns
from relive.index_service.segments import RowKey

WEIGHTS = [PriorityWeights()] * 3
NOW_US = 10**15


def row(partition: int, position: int, reward: float = 0.0, successes: int = 0) -> Row:
    return Row(
        partition=partition,
        position=position,
        experience_id=f"{partition}/{position}" if position % 3 else f"{position:032x}",
        event_time_us=NOW_US - position * 10**9,
        ordinal=position,
        content=bytes(16),
        total_reward=reward,
        model_confidence=0.5,
        given_priority=float("nan"),
        version=position % 5,
        retrieval_count=2,
        success_count=successes,
        outcome_count=2,
    )


def assert_columns_hold(columns: PriorityColumns, live: dict[RowKey, Row]) -> None:
    assert columns.size == len(live)
    found = []
    for partition, part in enumerate(columns.partitions):
        rows = part.live()
        priorities = part.priorities(WEIGHTS[0], NOW_US, rows)
        where = np.full(len(rows), partition), rows
        keys, ids = columns.keys(*where), columns.ids(*where)
        versions = columns.versions(*where).tolist()
        found += list(zip(keys, ids, versions, priorities.tolist(), strict=True))
    assert found == [
        (
            key,
            r.experience_id,
            r.version,
            priority_at(
                WEIGHTS[0], r.ageless_priority(WEIGHTS[0]), r.event_time_us, r.factor, NOW_US
            ),
        )
        for key, r in sorted(live.items())
    ]


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
        updates = []
        for _ in range(changed if keys else 0):
            key = keys[int(random.integers(len(keys)))]
            live[key] = row(*key, float(random.random()), int(random.integers(0, 3)))
            updates.append(live[key])
        columns.change(updates, WEIGHTS)
        chosen = random.permutation(len(keys))[: int(removed * len(keys))].tolist()
        columns.remove([live.pop(keys[at]) for at in chosen])
        assert_columns_hold(columns, live)


def test_many_that_come_and_go_take_no_more_room_than_those_there_are() -> None:
    columns = PriorityColumns(1)
    live: dict[RowKey, Row] = {}
    for position in range(20_000):
        r = row(0, position)
        columns.extend([r], WEIGHTS)
        live[RowKey(0, position)] = r
        if position >= 50:
            columns.remove([live.pop(RowKey(0, position - 50))])
    assert_columns_hold(columns, live)
    assert columns.nbytes < 100_000


def test_a_row_that_was_never_added_is_not_removed_by_accident() -> None:
    columns = PriorityColumns(1)
    columns.extend([row(0, 5), row(0, 9)], WEIGHTS)
    for position in (4, 7, 10):
        with pytest.raises(AssertionError):
            columns.remove([row(0, position)])
