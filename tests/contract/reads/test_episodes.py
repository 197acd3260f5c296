"""What episodes promise, of the embedded buffer and of the client alike."""

from __future__ import annotations

from typing import Any

import pytest

from relive.buffer import Experience
from relive.errors import InvalidQuery

NOW_S = 1_800_000_000.0


def step(episode: str, number: int, reward: float = 1.0) -> Experience:
    return Experience(
        id=f"{episode}{number}",
        visual=[float(number)] * 8,
        total_reward=reward,
        episode_id=episode,
        step=number,
        timestamp=int(NOW_S * 1e6),
    )


@pytest.fixture
def played(reads: Any) -> Any:
    """Episodes a, b and c, recorded out of order and interleaved; step 3 of b is missing."""
    steps = [step("a", n) for n in range(6)] + [step("b", n) for n in (0, 1, 2, 4, 5)]
    steps += [step("c", 0)]
    reads.buffer.add_many(steps[::2] + steps[1::2])
    reads.buffer.add(Experience(id="alone", text=[1.0] * 4))
    return reads


def sequences(reads: Any, n: int, length: int, **options: Any) -> Any:
    return reads.via.sample_sequences(n, length, **options, **reads.fresh())


def episode(reads: Any, episode_id: str) -> list[str]:
    return [e.id for e in reads.via.episode(episode_id, **reads.fresh())]


def test_runs_follow_their_episode_and_end_with_it(played: Any) -> None:
    batch = sequences(played, 50, 4, seed=1, now=NOW_S)

    runs = {run.id: [item.id for item in run] for run in batch}
    assert len(batch) == 13
    assert runs["a0"] == ["a0", "a1", "a2", "a3"]
    assert runs["a4"] == ["a4", "a5"]
    assert runs["b1"] == ["b1", "b2"]  # step 3 is missing
    assert runs["b4"] == ["b4", "b5"]
    assert runs["c0"] == ["c0"]
    assert runs["alone"] == ["alone"]
    for run in batch:
        assert len({item.episode_id for item in run}) == 1


def test_runs_begin_as_a_sample_is_drawn(played: Any) -> None:
    batch = sequences(played, 5, 3, seed=7, now=NOW_S, beta=0.5, replace=True)
    plain = played.sample(5, seed=7, now=NOW_S, beta=0.5, replace=True)

    assert batch.ids == list(plain.ids)
    assert [run.probability for run in batch] == plain.probabilities.tolist()
    assert [run.weight for run in batch] == plain.weights.tolist()
    assert played.via.update_priorities(batch.ids, [2.0] * 5, batch.versions).updated > 0


def test_columns_are_padded_and_masked(played: Any) -> None:
    batch = sequences(played, 13, 4, seed=1, now=NOW_S)

    columns = batch.columns
    assert columns["mask"].shape == columns["total_reward"].shape == (13, 4)
    assert columns["visual"].shape == (13, 4, 8)
    for at, run in enumerate(batch):
        assert columns["mask"][at].tolist() == [n < len(run) for n in range(4)]
        assert columns["step"][at][: len(run)].tolist() == [
            -1 if item.step is None else item.step for item in run
        ]
        expected = sum(0.5**n * item.total_reward for n, item in enumerate(run))
        assert batch.returns(0.5)[at] == pytest.approx(expected)


def test_an_episode_is_its_live_steps_in_order(played: Any) -> None:
    assert episode(played, "b") == ["b0", "b1", "b2", "b4", "b5"]
    assert episode(played, "nowhere") == []
    played.buffer.remove("b1")
    played.buffer.add(step("b", 3))
    again = Experience(id="late", visual=[9.0] * 8, episode_id="b", step=3)
    played.buffer.add(again)  # the step is taken
    assert episode(played, "b") == ["b0", "b2", "b3", "b4", "b5"]
    played.buffer.remove("b3")
    assert episode(played, "b") == ["b0", "b2", "late", "b4", "b5"]
    played.buffer.clear()
    assert episode(played, "b") == []


def test_evicted_steps_are_no_part_of_a_run(played: Any) -> None:
    sequences(played, 1, 2)
    played.buffer.add_many(step("d", n) for n in range(99))  # room for a hundred
    batch = sequences(played, 100, 2)
    assert {item.id for run in batch for item in run} == set(played.buffer.ids())


def test_nothing_is_drawn_where_nothing_is(reads: Any) -> None:
    batch = sequences(reads, 5, 2)
    assert len(batch) == 0
    assert batch.columns["mask"].shape == (0, 2)
    assert batch.returns(0.9).tolist() == []


@pytest.mark.parametrize(
    ("n", "length", "options", "field"),
    [
        (1, 0, {}, "length"),
        (1, -1, {}, "length"),
        (1_000, 101, {}, "length"),
        (-1, 2, {}, "n"),
        (1, 2, {"strategy": "nearest"}, "strategy"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    played: Any, n: int, length: int, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidQuery) as refused:
        sequences(played, n, length, **options)
    assert refused.value.field == field
