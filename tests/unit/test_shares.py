"""Putting together the answers of services with a share each: as one service with all of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.partition import partition_of
from relive.core.sampling import Strategy, draw, importance_weights, log_mass
from relive.schemas import index_pb2 as pb
from relive.shares import cover, merged_sample, merged_search, seed_of_share

PARTITIONS = 3
# Of chi-square, exceeded by chance once in a thousand times, by degrees of freedom.
CRITICAL = {5: 20.52, 8: 26.12}
IDS = [
    [i for i in (f"x{at}" for at in range(100)) if partition_of(i, PARTITIONS) == partition]
    for partition in range(PARTITIONS)
]
POSITIONS = {each: at for ids in IDS for at, each in enumerate(ids)}


def test_a_cover_has_every_partition_once() -> None:
    assert cover([(0,), (1,)], 2) == [(0,), (1,)]
    assert cover([(0,), (1,), (0, 1)], 2) == [(0, 1)]
    assert cover([(0, 1), (1, 2), (2,), (0,)], 3) in ([(0, 1), (2,)], [(0,), (1, 2)])
    assert cover([(0, 1), (1, 2)], 3) is None
    assert cover([(0,)], 2) is None
    assert cover([], 0) is None


@given(st.sets(st.sets(st.integers(0, 4), min_size=1).map(lambda s: tuple(sorted(s))), max_size=8))
def test_a_cover_is_found_if_there_is_one(shares: set[tuple[int, ...]]) -> None:
    found = cover(shares, 5)

    def exists(left: frozenset[int]) -> bool:
        return not left or any(
            left.issuperset(share) and min(left) in share and exists(left - set(share))
            for share in shares
        )

    assert (found is not None) is exists(frozenset(range(5)))
    if found is not None:
        assert sorted(p for share in found for p in share) == [0, 1, 2, 3, 4]
        assert shares.issuperset(found)


def hits(partition: int, scores: Sequence[float]) -> Any:
    """A share's reply: positions rise with the order in which scores are given."""
    reply = pb.SearchReply(
        basis=pb.Basis(positions={partition: len(scores)}, log_partitions=PARTITIONS)
    )
    mine = IDS[partition][: len(scores)]
    rows = sorted(zip(scores, range(len(scores)), mine, strict=True), key=lambda r: (-r[0], r[1]))
    for score, position, experience_id in rows:
        reply.hits.add(score=score, position=position).experience.id = experience_id
    return reply


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=6),
        min_size=PARTITIONS,
        max_size=PARTITIONS,
    ),
    st.integers(0, 20),
)
def test_the_best_of_all_are_in_order_of_score_position_partition(
    scores: list[list[float]], k: int
) -> None:
    replies = [hits(partition, mine) for partition, mine in enumerate(scores)]
    cut = [pb.SearchReply(basis=r.basis, hits=r.hits[:k]) for r in replies]

    merged = merged_search(pb.SearchRequest(k=k), cut, "r")

    every = [
        (-hit.score, hit.position, partition, hit.experience.id)
        for partition, reply in enumerate(replies)
        for hit in reply.hits
    ]
    assert [hit.experience.id for hit in merged.hits] == [row[3] for row in sorted(every)[:k]]
    assert dict(merged.basis.positions) == {p: len(mine) for p, mine in enumerate(scores)}


def drawn(partition: int, priorities: Sequence[float], n: int, seed: int, **options: Any) -> Any:
    """A share's reply to a sample: ids are PARTITION/ROW."""
    exponent = options.get("alpha", 1.0)
    found = draw(np.array(priorities), n, seed=seed, **options)
    reply = pb.SampleReply(
        basis=pb.Basis(positions={partition: 1}, log_partitions=PARTITIONS), now=5.0
    )
    for row, probability in zip(found.rows.tolist(), found.probabilities.tolist(), strict=True):
        item = reply.items.add(probability=probability)
        item.experience.id = f"{partition}/{row}"
        mass = log_mass(priorities[row], probability, exponent)
        assert mass is not None
        reply.log_mass = mass
    return reply


PRIORITIES = [[0.1, 0.4, 2.0], [1.0], [0.05, 0.6]]


def merged(
    n: int, seed: int, shares: Sequence[Sequence[float]] = PRIORITIES, **options: Any
) -> Any:
    replies = [
        drawn(p, priorities, n, seed_of_share(seed, (p,)), **options)
        for p, priorities in enumerate(shares)
    ]
    request = pb.SampleRequest(
        n=n, alpha=options.get("alpha"), replace=options.get("replace", False), beta=0.7
    )
    return merged_sample(request, replies, seed, "r")


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("replace", [True, False])
def test_probabilities_and_weights_are_those_of_one_service(alpha: float, replace: bool) -> None:
    whole = np.array([p for share in PRIORITIES for p in share]) ** alpha
    expected = {
        f"{share}/{row}": priority**alpha / whole.sum()
        for share, priorities in enumerate(PRIORITIES)
        for row, priority in enumerate(priorities)
    }

    batch = merged(6, 7, alpha=alpha, replace=replace)

    assert len(batch.items) == 6
    probabilities = np.array([item.probability for item in batch.items])
    assert probabilities == pytest.approx([expected[item.experience.id] for item in batch.items])
    assert [item.weight for item in batch.items] == pytest.approx(
        importance_weights(probabilities, 0.7)
    )
    assert batch.log_mass == pytest.approx(math.log(whole.sum()))
    if not replace:
        assert {item.experience.id for item in batch.items} == set(expected)


@pytest.mark.parametrize("replace", [True, False])
def test_pairs_are_drawn_as_often_as_one_service_draws_them(replace: bool) -> None:
    """Chi-square: pairs show whether draws of different shares depend on each other."""
    shares = [[0.3, 0.9], [0.7]]
    priority = {
        f"{s}/{r}": each for s, priorities in enumerate(shares) for r, each in enumerate(priorities)
    }
    total, rounds = sum(priority.values()), 2_000
    expected = {}
    for one, first in priority.items():
        for other, second in priority.items():
            if replace:
                expected[one, other] = first / total * second / total
            elif one != other:
                expected[one, other] = first / total * second / (total - first)

    found = Counter(
        tuple(item.experience.id for item in merged(2, seed, shares, replace=replace).items)
        for seed in range(rounds)
    )

    assert set(found) <= set(expected)
    distance = sum((found[pair] - p * rounds) ** 2 / (p * rounds) for pair, p in expected.items())
    assert distance < CRITICAL[len(expected) - 1]


@given(
    st.lists(st.lists(st.floats(1e-12, 1e12), max_size=4), min_size=2, max_size=PARTITIONS),
    st.integers(0, 15),
    st.booleans(),
)
def test_as_many_are_drawn_as_one_service_would(
    shares: list[list[float]], n: int, replace: bool
) -> None:
    batch = merged(n, 3, shares, replace=replace)

    live = sum(map(len, shares))
    assert len(batch.items) == (0 if live == 0 else n if replace else min(n, live))
    if not replace:
        assert len({item.experience.id for item in batch.items}) == len(batch.items)


def test_a_seed_gives_the_same_batch_again() -> None:
    assert merged(4, 11) == merged(4, 11)
    assert len({tuple(i.experience.id for i in merged(4, seed).items) for seed in range(20)}) > 5
    assert len({seed_of_share(1, share) for share in ((0,), (1,), (0, 1), (1, 2))}) == 4


@pytest.mark.parametrize("strategy", [Strategy.FIFO, Strategy.LIFO, Strategy.HIGHEST_PRIORITY])
def test_ranked_samples_are_in_the_order_of_one_service(strategy: Strategy) -> None:
    ids = [f"x{at}" for at in range(30)]
    priorities = {each: float(at * 7 % 5) for at, each in enumerate(ids)}
    rows = [i for p in range(PARTITIONS) for i in ids if partition_of(i, PARTITIONS) == p]
    if strategy is not Strategy.HIGHEST_PRIORITY:
        rows.sort(key=lambda i: (POSITIONS[i], partition_of(i, PARTITIONS)))

    def ranked(of: list[str]) -> list[str]:
        weights = np.array([priorities[i] for i in of])
        return [of[at] for at in draw(weights, 10, strategy=strategy, seed=0).rows]

    replies = []
    for share in ({0, 2}, {1}):
        reply = pb.SampleReply(basis=pb.Basis(log_partitions=PARTITIONS))
        for each in ranked([i for i in rows if partition_of(i, PARTITIONS) in share]):
            item = reply.items.add(probability=1.0, position=POSITIONS[each])
            item.experience.id, item.experience.priority = each, priorities[each]
        replies.append(reply)

    batch = merged_sample(pb.SampleRequest(n=10, strategy=strategy), replies, 0, "r")

    assert [item.experience.id for item in batch.items] == ranked(rows)
