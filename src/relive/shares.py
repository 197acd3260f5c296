"""Answers of services that have a share of the partitions each, put together.

Every function here is pure. A *share* is the partitions that a service answers for, rising.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from hashlib import blake2b
from heapq import merge
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from relive.core.partition import partition_of
from relive.core.results import StateSource
from relive.core.sampling import Strategy, importance_weights
from relive.core.state import joined_digest
from relive.schemas import index_pb2 as pb

Share: TypeAlias = tuple[int, ...]

_SEEDS = 2**63
# Of states that were found, the one that took the most work says how the whole was come by.
_BY_WORK = (StateSource.LOG, StateSource.SNAPSHOT, StateSource.STORE)


def cover(shares: Collection[Share], partitions: int) -> list[Share] | None:
    """Shares that have every partition exactly once, few before many; None if there are none."""
    if len(shares) == 0 or partitions < 1:
        return None
    by_size = sorted(set(shares), key=lambda share: (-len(share), share))

    def covers(left: frozenset[int]) -> list[Share] | None:
        if not left:
            return []
        first = min(left)
        for share in by_size:
            if first in share and left.issuperset(share):
                rest = covers(left.difference(share))
                if rest is not None:
                    return [share, *rest]
        return None

    return covers(frozenset(range(partitions)))


def merged_search(request: Any, replies: Sequence[Any], retrieval_id: str) -> Any:
    """The `SearchReply` of one service that has all shares; scores are exact, so they compare."""
    merged = pb.SearchReply(basis=_merged_basis(replies), retrieval_id=retrieval_id)
    merged.hits.extend(_best(request.k, replies, merged.basis.log_partitions))
    return merged


def merged_search_many(request: Any, replies: Sequence[Any], retrieval_ids: Sequence[str]) -> Any:
    """As `merged_search`, of every query."""
    merged = pb.SearchManyReply(basis=_merged_basis(replies))
    queries = zip(*(reply.answers for reply in replies), strict=True)
    for retrieval_id, answers in zip(retrieval_ids, queries, strict=True):
        best = _best(request.k, answers, merged.basis.log_partitions)
        merged.answers.add(retrieval_id=retrieval_id).hits.extend(best)
    return merged


def _best(k: int, answers: Sequence[Any], partitions: int) -> list[Any]:
    def rank(hit: Any) -> tuple[float, int, int]:
        return -hit.score, hit.position, partition_of(hit.experience.id, partitions)

    return sorted(chain.from_iterable(answer.hits for answer in answers), key=rank)[:k]


def without_content(sample: Any) -> Any:
    """A `SampleReply` with columns in place of its items."""
    for item in sample.items:
        sample.ids.append(item.experience.id)
        sample.probabilities.append(item.probability)
        sample.weights.append(item.weight)
        sample.priorities.append(item.experience.priority)
        sample.versions.append(item.version)
    del sample.items[:]
    return sample


def seed_of_share(seed: int, share: Share) -> int:
    """The seed for drawing from a share: with the same one, draws from two would go together."""
    return _derived(seed, ",".join(map(str, share)))


def merged_sample(request: Any, replies: Sequence[Any], seed: int, retrieval_id: str) -> Any:
    """The `SampleReply` of one service that has all shares.

    The probabilities are those of one service. Every draw first chooses the share, by what is left
    of its mass, then takes what that share drew next. The ids depend on the seed and on how the
    partitions are shared out.

    Args:
        request: what was asked for.
        replies: of all shares, each to a request for as many.
        seed: that the seeds of the shares were made of.
        retrieval_id: of the whole.
    """
    merged = pb.SampleReply(
        basis=_merged_basis(replies), retrieval_id=retrieval_id, seed=seed, now=replies[0].now
    )
    strategy = request.strategy if request.HasField("strategy") else Strategy.PRIORITIZED
    if strategy not in (Strategy.PRIORITIZED, Strategy.UNIFORM):
        merged.items.extend(_ranked(replies, strategy, merged.basis.log_partitions)[: request.n])
        return merged
    known = [reply.log_mass for reply in replies if reply.HasField("log_mass")]
    if not known:
        return merged
    most = max(known)
    masses = [
        math.exp(reply.log_mass - most) if reply.HasField("log_mass") else 0.0 for reply in replies
    ]
    total = math.fsum(masses)
    random = np.random.Generator(np.random.PCG64(_derived(seed, "shares")))
    places = (_drawn if request.replace else _drawn_once)(request.n, replies, masses, random)
    for share, at in places:
        item = merged.items.add()
        item.CopyFrom(replies[share].items[at])
        item.probability *= masses[share] / total
    weights = importance_weights(
        np.array([item.probability for item in merged.items]), request.beta
    )
    for item, weight in zip(merged.items, weights.tolist(), strict=True):
        item.weight = weight
    merged.log_mass = most + math.log(total)
    return merged


def _drawn(
    n: int, replies: Sequence[Any], masses: Sequence[float], random: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Which share each draw is from, and which of its draws it is; rows may come again."""
    taken = [0] * len(replies)
    bounds = np.cumsum(masses)
    shares = np.searchsorted(bounds, random.random(n) * bounds[-1], side="right")
    for share in np.minimum(shares, int(np.argmax(bounds == bounds[-1]))).tolist():
        yield share, taken[share]
        taken[share] += 1


def _drawn_once(
    n: int, replies: Sequence[Any], masses: Sequence[float], random: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """As `_drawn`, where each draw is from the rows that are left."""
    left = [_masses_left(reply, mass, n) for reply, mass in zip(replies, masses, strict=True)]
    taken = [0] * len(replies)
    for uniform in random.random(n).tolist():
        open_shares = [s for s in range(len(replies)) if taken[s] < len(replies[s].items)]
        if not open_shares:
            return
        at = uniform * math.fsum(left[s][taken[s]] for s in open_shares)
        share = open_shares[-1]
        for candidate in open_shares:
            at -= left[candidate][taken[candidate]]
            if at < 0.0:
                share = candidate
                break
        yield share, taken[share]
        taken[share] += 1


def _masses_left(reply: Any, mass: float, n: int) -> list[float]:
    """Of a share's mass, what is left before each of its draws, and after the last."""
    own = np.array([item.probability for item in reply.items]) * mass
    drawn = np.concatenate([[0.0], np.cumsum(own)])
    if len(own) < n:  # nothing else is left; sums from the end are exact where little is
        from_end: list[float] = np.concatenate([np.cumsum(own[::-1])[::-1], [0.0]]).tolist()
        return from_end
    left: list[float] = np.maximum(mass - drawn, 0.0).tolist()
    return left


def _ranked(replies: Sequence[Any], strategy: str, partitions: int) -> list[Any]:
    """What the shares have in their orders, in the order of a service that has all of it."""

    def partition(item: Any) -> int:
        return partition_of(item.experience.id, partitions)

    def rank(item: Any) -> tuple[float, ...]:
        if strategy == Strategy.HIGHEST_PRIORITY:
            return -item.experience.priority, partition(item)
        place = item.position, partition(item)
        return place if strategy == Strategy.FIFO else (-place[0], -place[1])

    ranked = [[(rank(item), item) for item in reply.items] for reply in replies]
    return [item for _, item in merge(*ranked, key=itemgetter(0))]


def merged_episode(replies: Sequence[Any]) -> Any:
    """The `EpisodeReply` of all shares together."""
    merged = pb.EpisodeReply(basis=_merged_basis(replies))

    def age(step: tuple[int, Any]) -> tuple[int, int, int]:
        position, experience = step
        home = partition_of(experience.id, merged.basis.log_partitions)
        return experience.step, position, home

    steps = chain.from_iterable(
        zip(reply.positions, reply.experiences, strict=True) for reply in replies
    )
    for _, of_step in groupby(sorted(steps, key=age), key=lambda step: step[1].step):
        position, experience = next(of_step)
        merged.positions.append(position)
        merged.experiences.append(experience)
    return merged


def shared_updates(request: Any, shares: Sequence[Share], partitions: int) -> dict[Share, Any]:
    """An `UpdatePrioritiesRequest` for every share that has some of the ids; at least one."""
    parts: dict[Share, Any] = {}
    source = request.source if request.HasField("source") else None
    columns = zip(request.ids, request.priorities, request.versions, strict=True)
    for experience_id, priority, version in columns:
        home = partition_of(experience_id, partitions)
        share = next(share for share in shares if home in share)
        if share not in parts:
            parts[share] = pb.UpdatePrioritiesRequest(source=source)
        part = parts[share]
        part.ids.append(experience_id)
        part.priorities.append(priority)
        part.versions.append(version)
    return parts or {shares[0]: request}


def merged_updates(replies: Sequence[Any]) -> Any:
    """The `UpdatePrioritiesReply` of all shares that were asked."""
    merged = pb.UpdatePrioritiesReply(basis=_merged_basis(replies))
    for name in _counts(merged):
        setattr(merged, name, sum(getattr(reply, name) for reply in replies))
    for reply in replies:
        merged.positions.update(reply.positions)
    return merged


def merged_stats(replies: Sequence[Any]) -> Any:
    """The `StatsReply` of all shares together: sums, and the digest of the whole."""
    merged = pb.StatsReply(basis=_merged_basis(replies), log=replies[0].log)
    for name in _counts(merged):
        setattr(merged, name, sum(getattr(reply, name) for reply in replies))
    for reply in replies:
        merged.partition_digests.update(reply.partition_digests)
    digests = merged.partition_digests
    merged.digest = joined_digest([digests[partition] for partition in sorted(digests)])
    merged.backend = ", ".join(sorted({reply.backend for reply in replies}))
    if all(reply.HasField("recovery") for reply in replies):
        _merge_recoveries(merged.recovery, [reply.recovery for reply in replies])
    if all(reply.HasField("index") for reply in replies):
        _merge_indices(merged.index, [reply.index for reply in replies])
    return merged


def _merge_recoveries(merged: Any, found: Sequence[Any]) -> None:
    merged.source = min((each.source for each in found), key=_BY_WORK.index)
    merged.events_replayed = sum(each.events_replayed for each in found)
    merged.seconds = max(each.seconds for each in found)
    for each in found:
        merged.positions.update(each.positions)
        merged.passed_over.extend(each.passed_over)


def _merge_indices(merged: Any, indices: Sequence[Any]) -> None:
    for name in _counts(merged):
        setattr(merged, name, sum(getattr(index, name) for index in indices))
    merged.recall = min(index.recall for index in indices)
    merged.building = any(index.building for index in indices)
    seconds = [index.last_seconds for index in indices if index.HasField("last_seconds")]
    failures = [index.last_failure for index in indices if index.HasField("last_failure")]
    gpus = [index.gpu for index in indices if index.HasField("gpu")]
    if gpus:
        merged.gpu.CopyFrom(max(gpus, key=lambda gpu: gpu.failures))
    if seconds:
        merged.last_seconds = max(seconds)
    if failures:
        merged.last_failure = "; ".join(failures)


def _merged_basis(replies: Sequence[Any]) -> Any:
    merged = pb.Basis(
        epoch=sum(reply.basis.epoch for reply in replies),
        degraded=any(reply.basis.degraded for reply in replies),
        approximate=any(reply.basis.approximate for reply in replies),
        log_partitions=replies[0].basis.log_partitions,
    )
    for reply in replies:
        merged.positions.update(reply.basis.positions)
    return merged


def _counts(message: Any) -> list[str]:
    fields = message.DESCRIPTOR.fields
    return [f.name for f in fields if f.type == f.TYPE_INT64 and not f.message_type]


def _derived(seed: int, purpose: str) -> int:
    drawn = blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") % _SEEDS
