"""What `sample` promises, of the embedded buffer and of the client alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from relive.buffer import Experience, Filter
from relive.errors import InvalidQuery

NOW_S = 1_800_000_000.0


def rows(batch: Any) -> list[tuple[str, float, float]]:
    return [(item.id, item.probability, item.weight) for item in batch]


@pytest.mark.parametrize("strategy", ["prioritized", "uniform", "fifo", "lifo", "highest_priority"])
@pytest.mark.parametrize("replace", [False, True])
def test_both_ways_draw_the_same_batch_at_the_same_positions(
    both: Any, make_experiences: Callable[..., list[Experience]], strategy: str, replace: bool
) -> None:
    embedded, _ = both
    embedded.buffer.add_many(make_experiences(40))

    one, other = (
        way.sample(16, seed=7, replace=replace, now=NOW_S, alpha=0.8, beta=0.5, strategy=strategy)
        for way in both
    )

    assert len(one) == 16
    assert rows(one) == rows(other)
    assert [item.experience.priority for item in one] == [
        item.experience.priority for item in other
    ]


def test_a_seed_gives_the_same_batch_again(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(40))

    one = reads.sample(8, seed=3, now=NOW_S)
    again = reads.sample(8, seed=3, now=NOW_S)
    other = reads.sample(8, seed=4, now=NOW_S)

    assert rows(one) == rows(again) != rows(other)
    assert one.retrieval_id != again.retrieval_id
    assert (one.seed, one.now) == (3, NOW_S)


def test_a_batch_names_the_seed_that_was_drawn_for_it(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(40))

    drawn = reads.sample(8)

    assert rows(reads.sample(8, seed=drawn.seed, now=drawn.now)) == rows(drawn)


def test_a_batch_says_what_it_was_drawn_from(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    token = reads.buffer.add_many(make_experiences(3))[-1]

    batch = reads.sample(2, seed=1)

    assert batch.positions[token.partition] > token.position
    assert (batch.epoch, batch.degraded) == (0, False)
    assert batch[0].experience.id == batch[0].id
    assert max(item.weight for item in batch) == 1.0


def test_without_replacement_every_live_one_comes_at_most_once(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(5))

    assert sorted(item.id for item in reads.sample(50)) == ["x0", "x1", "x2", "x3", "x4"]


def test_with_replacement_as_many_come_as_are_asked_for(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(5))

    assert len(reads.sample(50, replace=True)) == 50


def test_nothing_is_drawn_where_nothing_is(reads: Any) -> None:
    assert list(reads.sample(5)) == []


def test_an_n_of_0_draws_nothing(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(5))

    assert list(reads.sample(0)) == []


@pytest.mark.parametrize(
    ("n", "options", "field"),
    [
        (-1, {}, "n"),
        (100_001, {}, "n"),
        (1.5, {}, "n"),
        (True, {}, "n"),
        (1, {"seed": -1}, "seed"),
        (1, {"seed": 2**63}, "seed"),
        (1, {"seed": 1.0}, "seed"),
        (1, {"now": math.nan}, "now"),
        (1, {"now": -1.0}, "now"),
        (1, {"alpha": -0.1}, "alpha"),
        (1, {"beta": math.inf}, "beta"),
        (1, {"strategy": "best"}, "strategy"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    reads: Any,
    make_experiences: Callable[..., list[Experience]],
    n: Any,
    options: dict[str, Any],
    field: str,
) -> None:
    reads.buffer.add_many(make_experiences(3))

    with pytest.raises(InvalidQuery) as refused:
        reads.sample(n, **options)

    assert refused.value.field == field


def test_numpy_numbers_will_do(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(5))

    batch = reads.sample(np.int32(2), seed=np.int64(9), now=np.float64(NOW_S), alpha=np.float32(1))

    assert (len(batch), batch.seed) == (2, 9)


def test_a_batch_is_columns_too(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(9))
    reads.buffer.add(Experience(id="last", text=[1.0, 2.0, 3.0, 4.0], episode_id="e", step=4))

    batch = reads.sample(10, seed=1, now=NOW_S, beta=0.5)
    columns = batch.columns

    assert columns["id"].tolist() == [item.id for item in batch] == list(batch.ids)
    assert columns["probability"].tolist() == [item.probability for item in batch]
    assert columns["weight"].tolist() == [item.weight for item in batch]
    for name in ("priority", "total_reward", "model_confidence", "timestamp", "success_rate"):
        assert columns[name].tolist() == [getattr(item.experience, name) for item in batch]
    for at, item in enumerate(batch):
        for name in ("visual", "text"):
            given = getattr(item.experience, name)
            if name in columns:
                expected = [0.0] * columns[name].shape[1] if given is None else given.tolist()
                assert columns[name][at].tolist() == expected
        assert columns["step"][at] == (4 if item.id == "last" else -1)
        assert columns["episode_id"][at] == ("e" if item.id == "last" else None)
    assert all(len(column) == 10 for column in columns.values())
    assert columns["visual"].dtype == np.float32
    assert columns["visual"].flags.c_contiguous


@pytest.mark.parametrize("replace", [False, True])
def test_a_batch_without_content_is_the_same_draw(
    reads: Any, make_experiences: Callable[..., list[Experience]], replace: bool
) -> None:
    reads.buffer.add_many(make_experiences(20))

    full = reads.sample(8, seed=1, now=NOW_S, beta=0.5, replace=replace)
    bare = reads.sample(8, seed=1, now=NOW_S, beta=0.5, replace=replace, content=False)

    assert len(bare) == 8
    assert bare.ids == full.ids
    for name, column in bare.columns.items():
        assert column.tolist() == full.columns[name].tolist()
    with pytest.raises(InvalidQuery, match="content"):
        bare[0]


def test_where_alpha_is_not_1_the_batch_names_the_time_it_was_drawn_at(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(20))

    batch = reads.sample(8, seed=1, now=NOW_S + 1.25, alpha=0.6)

    assert NOW_S - 7 * 86_400 / 256 < batch.now <= NOW_S + 1.25
    assert rows(reads.sample(8, seed=1, now=batch.now, alpha=0.6)) == rows(batch)


def test_a_share_of_a_batch_can_be_the_nearest_to_a_query(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    experiences = make_experiences(30)
    reads.buffer.add_many(experiences)
    query = {"visual": experiences[3].visual, "text": experiences[3].text}
    nearest = [hit.id for hit in reads.search(**query, k=4)]

    batch = reads.sample(
        16, seed=1, now=NOW_S, beta=0.5, strategy="nearest", nearest_share=0.25, **query
    )
    plain = reads.sample(30, seed=1, now=NOW_S)

    assert list(batch.ids[:4]) == nearest
    assert len(set(batch.ids)) == 16
    assert batch.columns["probability"][:4].tolist() == [1.0] * 4
    probabilities = {item.id: item.probability for item in plain}
    assert batch.columns["probability"][4:] == pytest.approx(
        [probabilities[i] for i in batch.ids[4:]]
    )
    everything = reads.sample(50, strategy="nearest", seed=1, **query)
    assert sorted(everything.ids) == sorted(e.id or "" for e in experiences)


def test_embeddings_go_with_nearest_alone(
    reads: Any, make_experiences: Callable[..., list[Experience]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    for options in (
        {"strategy": "nearest"},
        {"visual": np.ones(8)},
        {"visual": np.ones(8), "strategy": "nearest", "nearest_share": 1.5},
        {"visual": np.ones(9), "strategy": "nearest"},
    ):
        with pytest.raises(InvalidQuery):
            reads.sample(2, **options)


@pytest.mark.parametrize("strategy", ["prioritized", "uniform", "fifo", "highest_priority"])
def test_a_filtered_sample_is_drawn_as_if_there_were_no_others(
    reads: Any, make_experiences: Callable[..., list[Experience]], strategy: str
) -> None:
    experiences = make_experiences(30)
    reads.buffer.add_many(experiences)
    rewards = sorted(e.total_reward for e in experiences)
    wanted = Filter(min_reward=rewards[18])

    batch = reads.sample(50, seed=1, now=NOW_S, filter=wanted, strategy=strategy)

    matching = [e for e in experiences if e.total_reward >= rewards[18]]
    assert sorted(batch.ids) == sorted(e.id or "" for e in matching)
    if strategy == "prioritized":
        priorities = np.array([item.experience.priority for item in batch])
        expected = priorities / priorities.sum()
        assert batch.probabilities.tolist() == pytest.approx(expected.tolist())
    near = reads.sample(6, strategy="nearest", visual=experiences[0].visual, filter=wanted, seed=1)
    assert set(near.ids) <= {e.id for e in matching}
    assert len(near) == 6
    assert len(reads.sample(5, filter=Filter(min_reward=1e9), strategy=strategy)) == 0
