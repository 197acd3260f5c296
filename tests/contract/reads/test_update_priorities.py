"""What `update_priorities` promises, of the embedded buffer and of the client alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from relive.buffer import Experience
from relive.errors import InvalidExperience

NOW_S = 1_800_000_000.0


@pytest.fixture
def filled(reads: Any, make_experiences: Callable[..., list[Experience]]) -> Any:
    reads.buffer.add_many(make_experiences(20))
    return reads


def counts(done: Any) -> tuple[int, int, int]:
    return done.updated, done.stale, done.unknown


def test_priorities_of_a_batch_take_the_place_of_the_old_ones(filled: Any) -> None:
    batch = filled.sample(8, seed=1, now=NOW_S, content=False)
    new = np.linspace(5.0, 12.0, 8)

    done = filled.via.update_priorities(batch.ids, new, batch.versions)

    assert counts(done) == (8, 0, 0)
    again = filled.sample(8, strategy="highest_priority", now=0.0)
    assert again.ids == batch.ids[::-1]
    assert again.columns["priority"].tolist() == pytest.approx(new[::-1].tolist())
    assert again.columns["version"].tolist() == [1] * 8


def test_a_version_that_is_no_longer_and_an_id_that_is_not_there_are_told(filled: Any) -> None:
    batch = filled.sample(6, seed=1, content=False)
    filled.via.update_priorities(batch.ids[:2], [1.0, 2.0], batch.versions[:2])
    filled.buffer.remove(batch.ids[5])

    done = filled.via.update_priorities(
        [*batch.ids, "nobody"], [9.0] * 7, [*batch.versions.tolist(), 0]
    )

    assert counts(done) == (3, 2, 2)
    stats = filled.stats()
    assert (stats.priority_updates, stats.stale_updates, stats.unknown_updates) == (5, 2, 2)
    kept = {item.id: item.version for item in filled.sample(20)}
    assert [kept[i] for i in batch.ids[:5]] == [1, 1, 1, 1, 1]


def test_of_several_priorities_for_one_id_the_last_counts(filled: Any) -> None:
    done = filled.via.update_priorities(["x1", "x2", "x1"], [3.0, 4.0, 5.0], [0, 0, 0])

    assert counts(done) == (2, 0, 0)
    assert filled.sample(1, strategy="highest_priority", now=0.0).ids == ["x1"]


def test_a_retry_of_what_was_taken_is_stale_and_changes_nothing(filled: Any) -> None:
    first = filled.via.update_priorities(["x1"], [3.0], [0])
    again = filled.via.update_priorities(["x1"], [3.0], [0])

    assert (counts(first), counts(again)) == ((1, 0, 0), (0, 1, 0))


def test_nothing_to_update_is_nothing_done(filled: Any) -> None:
    assert counts(filled.via.update_priorities([], [], [])) == (0, 0, 0)


@pytest.mark.parametrize(
    ("ids", "priorities", "versions", "field"),
    [
        (["x1"], [math.nan], [0], "priorities[0]"),
        (["x1", "x2"], [1.0, -1.0], [0, 0], "priorities[1]"),
        (["x1"], [1.0, 2.0], [0], "priorities"),
        (["x1"], [1.0], [], "versions"),
        (["x1"], [1.0], [-1], "versions[0]"),
        (["x1"], [1.0], [0.5], "versions[0]"),
        (["x1", ""], [1.0, 1.0], [0, 0], "ids[1]"),
        ("x1", [1.0, 1.0], [0, 0], "ids"),
    ],
)
def test_what_makes_no_sense_is_refused_whole_and_by_name(
    filled: Any, ids: Any, priorities: Any, versions: Any, field: str
) -> None:
    with pytest.raises(InvalidExperience) as refused:
        filled.via.update_priorities(ids, priorities, versions)

    assert refused.value.field == field
    assert filled.stats().priority_updates == 0
