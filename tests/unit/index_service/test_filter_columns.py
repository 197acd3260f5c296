"""The columns that filters look at, row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.experience import Experience
from relive.core.filter import Filter, scalar_key
from relive.core.fold import Added, Cause, Removed, Updated
from relive.core.row import Row, filter_inputs, pack_row
from relive.index_service import filter_columns as module
from relive.index_service.filter_columns import FilterColumns, KeyColumn, Selected, coded
from relive.producers import Composer


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST_ROOM", 2)


def row(position: int, partition: int = 0, **values: Any) -> Row:
    known: dict[str, Any] = {
        "partition": partition,
        "position": position,
        "experience_id": f"{partition}/{position}",
        "event_time_us": position,
        "ordinal": position,
        "content": bytes(16),
        "total_reward": float(position),
        "model_confidence": 0.5,
        "given_priority": math.nan,
        "version": 0,
        "retrieval_count": 0,
        "success_count": 0,
        "outcome_count": 0,
    }
    return Row(**{**known, **values})


def added(row: Row, **metadata: Any) -> Added:
    return Added(row, Composer("t").experience(Experience(visual=[1.0], metadata=metadata)))


def found(columns: FilterColumns, wanted: Filter, position: int) -> list[int] | None:
    """The positions below 1,000 of partition 0 that match, in a view of a position."""
    selected = columns.selected(wanted, {0: position})
    if selected is None:
        return None
    matching: list[int] = np.flatnonzero(
        selected(np.zeros(1_000, np.int64), np.arange(1_000))
    ).tolist()
    return matching


def learn(columns: FilterColumns, key: str, values: dict[int, Any], since: int) -> None:
    """Give a key a column, of what the rows at some positions have there."""
    codes: dict[Any, int] = {}
    of_rows = np.array(coded(({key: v} for v in values.values()), key, codes), dtype=np.int32)
    columns.put_keys(0, np.array(list(values)), {key: KeyColumn(codes, of_rows, since)})


# Close together, far apart, and at both ends of what a position can be.
POSITIONS = st.integers(0, 30) | st.sampled_from([0, 31, 1_000, 2**40, 2**63 - 1])


@given(
    st.lists(st.sets(POSITIONS), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), POSITIONS), max_size=60),
)
def test_selected_rows_are_told_from_others(mine: list[set[int]], rows: list[Any]) -> None:
    selected = Selected([np.array(sorted(some), dtype=np.int64) for some in mine])
    rows = [(partition % len(mine), position) for partition, position in rows]
    partitions, positions = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    assert selected(partitions, positions).tolist() == [at in mine[p] for p, at in rows]


def test_rows_that_are_gone_are_known_to_views_that_have_them_and_no_older_ones() -> None:
    columns = FilterColumns({0: 0})
    columns.follow([added(row(n)) for n in range(8)], {0: 0})
    columns.follow([Removed(row(n), Cause.EVICTED) for n in range(6)], {0: 8})
    below_4 = Filter(max_reward=3.5)
    assert found(columns, below_4, 8) == [0, 1, 2, 3]
    # There is no more room: what was gone by the last view goes.
    columns.follow([added(row(n)) for n in range(8, 20)], {0: 14})
    assert found(columns, Filter(), 20) == [6, 7, *range(8, 20)]
    assert found(columns, Filter(), 14) is not None
    assert found(columns, Filter(), 13) is None


def test_rows_that_are_gone_take_no_room_for_long() -> None:
    columns = FilterColumns({0: 0})
    for n in range(1_000):
        columns.follow([added(row(n))], {0: n})
        if n >= 10:
            columns.follow([Removed(row(n - 10), Cause.EVICTED)], {0: n + 1})
    assert columns._blocks[0].room < 30


def test_values_that_no_row_has_any_more_are_forgotten() -> None:
    columns = FilterColumns({0: 0})
    learn(columns, "name", {}, 0)
    for n in range(1_000):
        columns.follow([added(row(n), name=f"name {n}")], {0: n})
        if n >= 10:
            columns.follow([Removed(row(n - 10), Cause.EVICTED)], {0: n + 1})
        assert found(columns, Filter(where={"name": f"name {n}"}), n + 1) == [n]
    assert len(columns._blocks[0].keys["name"].codes) < 30
    assert found(columns, Filter(where={"name": "name 995"}), 1_000) == [995]
    assert found(columns, Filter(where={"name": "name 5"}), 1_000) == []


def test_a_key_without_a_column_is_missing_and_a_view_from_before_it_was_read_is_too_old() -> None:
    columns = FilterColumns({0: 0})
    columns.follow([added(row(n), room=n % 2) for n in range(4)], {0: 0})
    wanted = Filter(where={"room": 1}, min_reward=1.5)
    assert columns.missing(wanted) == ["room"]
    assert found(columns, wanted, 4) is None
    learn(columns, "room", {n: n % 2 for n in range(4)}, since=4)
    assert columns.missing(wanted) == []
    assert found(columns, wanted, 4) == [3]
    assert found(columns, wanted, 3) is None


def test_the_key_that_was_asked_for_longest_ago_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    columns = FilterColumns({0: 0})
    for key in ("a", "b"):
        columns.missing(Filter(where={key: 1}))
        learn(columns, key, {}, 0)
    columns.missing(Filter(where={"a": 1}))
    learn(columns, "c", {}, 0)
    assert [key for key in "abc" if not columns.missing(Filter(where={key: 1}))] == ["a", "c"]


def test_a_changed_success_rate_counts_at_once() -> None:
    columns = FilterColumns({0: 0})
    columns.follow([added(row(n)) for n in range(3)], {0: 0})
    assert found(columns, Filter(min_success_rate=0.0), 3) == []
    changed = row(1, retrieval_count=4, success_count=1, outcome_count=2)
    columns.follow([Updated(changed)], {0: 3})
    assert found(columns, Filter(min_success_rate=0.25), 3) == [1]
    assert found(columns, Filter(min_success_rate=0.26), 3) == []
    assert found(columns, Filter(max_success_rate=0.5), 3) == [1]


COUNTS = st.tuples(*[st.integers(0, 5)] * 3).map(sorted)


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.floats(0, 1), COUNTS), max_size=20))
def test_packed_rows_give_what_each_gives_alone(drawn: list[Any]) -> None:
    rows = [
        row(
            n,
            total_reward=reward,
            model_confidence=confidence,
            success_count=counts[0],
            outcome_count=counts[1],
            retrieval_count=counts[2],
        )
        for n, (reward, confidence, counts) in enumerate(drawn)
    ]
    inputs = filter_inputs([pack_row(row) for row in rows])
    assert inputs.event_time_us.tolist() == [row.event_time_us for row in rows]
    assert inputs.total_reward.tolist() == [row.total_reward for row in rows]
    assert inputs.model_confidence.tolist() == [row.model_confidence for row in rows]
    np.testing.assert_array_equal(inputs.success_rate, [row.known_success_rate for row in rows])


def test_lists_maps_and_missing_keys_have_no_code() -> None:
    codes: dict[Any, int] = {}
    documents: list[Any] = [
        {"a": []},
        {"a": {}},
        {},
        {"a": None},
        {"a": 1},
        {"a": True},
        {"a": 1.0},
    ]
    assert coded(documents, "a", codes) == [0, 0, 0, 1, 2, 3, 2]
    assert codes == {scalar_key(None): 1, scalar_key(1): 2, scalar_key(True): 3}
