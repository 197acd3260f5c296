"""Training lists for rows: how many, and how much of them to look at, for the recall that is asked.

Runs in the builder's process. The same rows give the same model: nothing here is drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from relive.core.embedding import EmbeddingSpace, Metric, Query
from relive.index_service.build_progress import Phase, Told, not_told
from relive.index_service.lists import Lists, Model, Probes, coded_rows, one_thread_faiss
from relive.index_service.mapped_rows import let_go
from relive.index_service.scan import Float32Array, IndexArray
from relive.index_service.trials import RECALL_AT, kinds_of_query, query_like

SEED = 1

# Rows that stand in for queries, each compared with all others: for 50,000 rows about a second.
_QUERIES = 100
_ROWS_AT_ONCE, _SPREAD_AT_ONCE = 4_096, 512
_KMEANS_ROUNDS = 8
_ROWS_PER_LIST = 40
_CODE_ROWS = 8_192
# What the codes may lose of what is in the lists that are looked at.
_CODE_LOSS = 0.01
# Equal rows may differ by this much of a score in float32.
_ROUNDING = 1e-5
_CANDIDATES = (50, 100, 200, 400, 800)


class Recall(NamedTuple):
    """Of the true ten nearest, the share that was found; None where there is no such query."""

    both: float | None
    visual: float | None
    text: float | None


@dataclass(frozen=True)
class Trained:
    """Lists that hold all rows, and how good they are."""

    lists: Lists
    recall: Recall


@dataclass(frozen=True)
class _Trial:
    """Queries of one kind, and their true answers.

    Attributes:
        rows: int64 of shape (q,), the rows that the queries were made of; no answer to them.
        truth: int64 of shape (q, RECALL_AT).
    """

    rows: IndexArray
    queries: list[Query]
    truth: IndexArray

    @property
    def scans(self) -> Float32Array:
        return np.array([query.scan for query in self.queries])


def train(
    rows: Float32Array,
    space: EmbeddingSpace,
    *,
    n_probes: int,
    floor: float,
    told: Told = not_told,
) -> Trained | None:
    """Lists that find at least `floor` of the true ten nearest; None if there are none.

    Args:
        rows: float32 of shape (n, width), n at least 1,000.
        space: of the rows.
        n_probes: lists looked at for a query of both embeddings.
        floor: 0 to 1.
        told: how far it is.
    """
    faiss = one_thread_faiss()
    trials = _trials(rows, space, told)
    if not trials:
        return None
    least = min(1.0, floor + _CODE_LOSS)
    centres, probes = _fitted(rows, space, trials, n_probes, least, told)
    if len(centres) == 1 and space.metric is Metric.EUCLIDEAN:
        return None  # all rows at 8 bits a number take as long as the rows themselves
    index = _coder(rows, space, centres)
    model = Model(space, index, probes, _CANDIDATES[0], len(rows))
    filled = faiss.clone_index(index)
    for start, block in blocks(rows):
        model.add(filled, block)
        told(Phase.CODES, start + len(block), len(rows))
    return _tuned(rows, Lists(model, filled), trials, floor, told)


# What is asked, and what is true


def _trials(rows: Float32Array, space: EmbeddingSpace, told: Told) -> dict[str, _Trial]:
    """The kinds of query that these rows can be asked."""
    kinds = kinds_of_query(space)
    trials = {}
    for number, kind in enumerate(kinds):
        chosen, queries = [], []
        # More than are needed, as some rows lack an embedding.
        for at in np.linspace(0, len(rows) - 1, min(len(rows), 4 * _QUERIES)).astype(np.int64):
            query = query_like(space, rows[at], kind)
            if query is not None and at not in chosen:
                chosen.append(int(at))
                queries.append(query)
        step = max(1, len(chosen) // _QUERIES)
        chosen, queries = chosen[::step][:_QUERIES], queries[::step][:_QUERIES]
        if queries:
            numbers = np.array(chosen, dtype=np.int64)
            scans = np.array([query.scan for query in queries])
            seen = _seen(told, Phase.TRUTH, number * len(rows), len(kinds) * len(rows))
            truth = _nearest(rows, scans, numbers, seen)
            trials[kind] = _Trial(numbers, queries, truth)
    return trials


def _nearest(
    rows: Float32Array, scans: Float32Array, own: IndexArray, seen: Callable[[int], None]
) -> IndexArray:
    """The rows of the greatest dot products with each query but its own: shape (q, RECALL_AT)."""
    wanted = min(RECALL_AT, len(rows) - 1)
    scores = np.empty((len(scans), 0), dtype=np.float32)
    numbers = np.empty((len(scans), 0), dtype=np.int64)
    for start, block in blocks(rows):
        here = scans @ block.T
        for at in np.flatnonzero((own >= start) & (own < start + len(block))):
            here[at, own[at] - start] = -np.inf
        scores = np.hstack([scores, here])
        ours = np.broadcast_to(np.arange(start, start + len(block)), here.shape)
        numbers = np.hstack([numbers, ours])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :wanted]
        scores = np.take_along_axis(scores, best, axis=1)
        numbers = np.take_along_axis(numbers, best, axis=1)
        seen(start + len(block))
    return numbers


def blocks(rows: Float32Array) -> Iterator[tuple[int, Float32Array]]:
    """All rows, some at a time, and the number of the first."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield start, rows[start : start + _ROWS_AT_ONCE]
        let_go(rows)


def _seen(told: Told, phase: Phase, before: int, total: int) -> Callable[[int], None]:
    """Tells how many rows were seen, of a pass over all of them that is one of several."""
    told(phase, before, total)
    return lambda rows: told(phase, before + rows, total)


# How many lists


def _fitted(
    rows: Float32Array,
    space: EmbeddingSpace,
    trials: dict[str, _Trial],
    n_probes: int,
    least: float,
    told: Told,
) -> tuple[Float32Array, Probes]:
    """Centres of as many lists as leave enough of the truth in those that are looked at."""
    count = 1 << round(np.log2(np.sqrt(len(rows))))
    seen_before = 0
    usual = next(iter(trials.values()))
    while count > n_probes:
        # How often this is done is not known before.
        seen = _seen(told, Phase.LISTS, seen_before, seen_before + len(rows))
        centres = _centres(rows, space, count)
        assigned = _assigned(rows, space, centres, seen)
        seen_before += len(rows)
        if _in_lists(usual, centres, assigned, n_probes) >= least:
            wanted = {
                kind: _probes_for(trial, centres, assigned, n_probes, least)
                for kind, trial in trials.items()
            }
            both = wanted.get("both", count)
            return centres, Probes(both, wanted.get("visual", both), wanted.get("text", both))
        count //= 2
    return _centres(rows, space, 1), Probes(1, 1, 1)


def _centres(rows: Float32Array, space: EmbeddingSpace, count: int) -> Float32Array:
    """Centres of lists, as index rows of shape (count, width)."""
    faiss = one_thread_faiss()
    vectors = _spread(rows, _ROWS_PER_LIST * count, space.vector_width)
    kmeans = faiss.Kmeans(
        space.vector_width,
        count,
        niter=_KMEANS_ROUNDS,
        spherical=space.metric is Metric.COSINE,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=_ROWS_PER_LIST,
    )
    kmeans.train(vectors)
    centres: Float32Array = np.asarray(kmeans.centroids)
    if space.width == space.vector_width:
        return centres
    # A centre is compared with a query as a row is, so it gets a row's squared lengths.
    made = np.empty((count, space.width), dtype=np.float32)
    for row, centre in zip(made, centres, strict=True):
        row[:] = space.row(*space.halves(centre))
    return made


def _spread(rows: Float32Array, count: int, width: int) -> Float32Array:
    """The first numbers of so many rows, or all, taken evenly."""
    sample = np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(np.int64)
    vectors = np.empty((len(sample), width), dtype=np.float32)
    for start in range(0, len(sample), _SPREAD_AT_ONCE):
        some = slice(start, start + _SPREAD_AT_ONCE)
        vectors[some] = rows[sample[some], :width]
        let_go(rows)
    return vectors


def _assigned(
    rows: Float32Array,
    space: EmbeddingSpace,
    centres: Float32Array,
    seen: Callable[[int], None],
) -> IndexArray:
    faiss = one_thread_faiss()
    width = space.vector_width
    metric = faiss.METRIC_INNER_PRODUCT if space.metric is Metric.COSINE else faiss.METRIC_L2
    flat = np.ascontiguousarray(centres[:, :width])
    parts = []
    for start, block in blocks(rows):
        vectors = np.ascontiguousarray(block[:, :width])
        parts.append(faiss.knn(vectors, flat, 1, metric=metric)[1][:, 0])
        seen(start + len(block))
    return np.concatenate(parts)


def _in_lists(trial: _Trial, centres: Float32Array, assigned: IndexArray, probes: int) -> float:
    """The share of the truth that lies in the lists looked at."""
    scores = trial.scans @ centres.T
    looked_at = np.argsort(-scores, axis=1)[:, :probes]
    there = assigned[trial.truth][:, :, None] == looked_at[:, None, :]
    return float(there.any(axis=2).mean())


def _probes_for(
    trial: _Trial, centres: Float32Array, assigned: IndexArray, n_probes: int, least: float
) -> int:
    probes = n_probes
    while probes < len(centres) and _in_lists(trial, centres, assigned, probes) < least:
        probes = -(-3 * probes // 2)
    return min(probes, len(centres))


# Codes


def _coder(rows: Float32Array, space: EmbeddingSpace, centres: Float32Array) -> Any:
    """A trained index of these lists, without rows."""
    faiss = one_thread_faiss()
    sample = _spread(rows, _CODE_ROWS, space.width)
    if space.metric is Metric.COSINE:
        numbers = _numbers_per_code(space.width)
        width = -(-space.width // (2 * numbers)) * 2 * numbers
        quantizer = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFPQFastScan(
            quantizer, width, len(centres), width // numbers, 4, faiss.METRIC_INNER_PRODUCT
        )
        index.by_residual = False
        index.pq.cp.niter = _KMEANS_ROUNDS
        index.pq.cp.max_points_per_centroid = _CODE_ROWS // 16
    else:
        width = space.width
        quantizer = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFScalarQuantizer(
            quantizer,
            width,
            len(centres),
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
    quantizer.add(coded_rows(centres, width))
    index.train(coded_rows(sample, width))
    # The quantizer is to live as long as the index: it is the index's own from here on.
    return faiss.clone_index(index)


def _numbers_per_code(width: int) -> int:
    if width >= 512:
        return 8
    return 4 if width >= 128 else 2


def _tuned(
    rows: Float32Array, lists: Lists, trials: dict[str, _Trial], floor: float, told: Told
) -> Trained | None:
    """With as many candidates, and then lists looked at, as the floor needs."""
    model = lists.model
    for number, candidates in enumerate(_CANDIDATES):
        told(Phase.TRIAL, number, len(_CANDIDATES))
        probes = model.probes
        while True:
            tried = Lists(replace(model, probes=probes, candidates=candidates), lists.index)
            recall = Recall(
                *(_recall(rows, tried, trials[k]) if k in trials else None for k in Recall._fields)
            )
            if all(share is None or share >= floor for share in recall):
                return Trained(tried, recall)
            # Only single embeddings are looked for in more lists than was asked for.
            wider = {
                kind: min(model.lists, 2 * getattr(probes, kind))
                for kind in ("visual", "text")
                if (share := getattr(recall, kind)) is not None and share < floor
            }
            more = probes._replace(**wider)
            if more == probes:
                break
            probes = more
    return None


def _recall(rows: Float32Array, lists: Lists, trial: _Trial) -> float:
    """What is found of the truth, as a search would; of equal rows, any will do."""
    found = 0
    for own, query, truth in zip(trial.rows, trial.queries, trial.truth, strict=True):
        _, numbers = lists.top(lists.model.near(query), lists.model.candidates, None)
        numbers = numbers[numbers != own]
        best = np.sort(rows[numbers] @ query.scan)[::-1][: len(truth)]
        true = rows[truth] @ query.scan
        found += int(np.count_nonzero(best >= true.min() - _ROUNDING * np.abs(true).max()))
        let_go(rows)
    return found / trial.truth.size
