"""The index and its views, against brute force over a dict."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.core.embedding import EmbeddingSpace, Metric
from relive.index_service import segments as segments_module
from relive.index_service.index import Base, Index
from relive.index_service.scan import NumpyScanner, Scanner, installed_scanner
from relive.index_service.segments import Chunk, RowKey
from relive.index_service.training import train
from relive.index_service.view import Found, View

SPACES = {
    Metric.COSINE: EmbeddingSpace(3, 0, Metric.COSINE),
    Metric.EUCLIDEAN: EmbeddingSpace(3, 0, Metric.EUCLIDEAN),
}
Live = dict[RowKey, Any]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_module, "CHUNK_ROWS", 8)


def brute_force(live: Live, space: EmbeddingSpace, vector: Any, k: int) -> list[Found]:
    query = space.query(vector, None)
    scored = [Found(key, float(query.exact(row[None, :])[0])) for key, row in live.items()]
    scored.sort(key=lambda found: (-found.score, found.key.position, found.key.partition))
    return scored[:k]


def vectors(random: np.random.Generator, n: int, ties: bool) -> list[Any]:
    made = random.standard_normal((n, 3)).astype(np.float32)
    return list(np.sign(made) if ties else made)


def apply(
    index: Index,
    live: Live,
    added: Sequence[tuple[RowKey, Any]],
    removed: Sequence[RowKey] = (),
    position: int = 0,
) -> None:
    rows = index.view.space.rows([vector for _, vector in added], [None] * len(added))
    index.apply([key for key, _ in added], rows, removed, {0: position})
    live.update(zip([key for key, _ in added], rows, strict=True))
    for key in removed:
        del live[key]


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("eviction", ["oldest", "random"])
def test_every_view_answers_as_brute_force_does(
    scanner: Scanner, metric: Metric, eviction: str
) -> None:
    @settings(max_examples=20)
    @given(
        batches=st.lists(st.tuples(st.integers(0, 20), st.floats(0.0, 1.0)), max_size=10),
        k=st.integers(0, 30),
        seed=st.integers(0, 2**32),
        ties=st.booleans(),
    )
    def holds(batches: list[tuple[int, float]], k: int, seed: int, ties: bool) -> None:
        random = np.random.default_rng(seed)
        space = SPACES[metric]
        index, live = Index(space), Live()
        position = 0
        older: list[tuple[View, Live]] = []
        for count, share in batches:
            added = []
            for vector in vectors(random, count, ties):
                position += int(random.integers(1, 4))
                added.append((RowKey(int(random.integers(0, 2)), position), vector))
            # Some are removed in the batch that adds them.
            candidates = [*live, *(key for key, _ in added)]
            if eviction == "random":
                random.shuffle(candidates)
                candidates = [RowKey(*map(int, key)) for key in candidates]
            removed = candidates[: int(share * len(candidates))]
            apply(index, live, added, removed, position)
            older.append((index.view, dict(live)))
            assert index.view.size == len(live)
            assert index.view.positions == {0: position}
        # Views that were replaced still answer for their own moment.
        for view, then in older:
            vector = vectors(random, 1, ties)[0]
            found = view.search(scanner, space.query(vector, None), k)
            assert found == brute_force(then, space, vector, k)
            assert len({f.key for f in found}) == len(found) == min(k, len(then))

    holds()


def test_equal_scores_come_oldest_first_however_many_there_are(scanner: Scanner) -> None:
    index, live = Index(SPACES[Metric.COSINE]), Live()
    ones = np.ones(3, np.float32)
    # Of each pair of partitions at one position, the lower first.
    keys = [RowKey(partition, position) for position in range(100) for partition in (0, 1)]
    apply(index, live, [(key, ones * (1 + key.position % 3)) for key in keys])
    query = index.view.space.query(ones, None)
    for k in (1, 7, 50, 200, 1_000):
        assert [found.key for found in index.view.search(scanner, query, k)] == keys[:k]


def test_rows_closer_than_float32_can_tell_are_ordered_by_their_exact_scores(
    scanner: Scanner,
) -> None:
    space = EmbeddingSpace(64, 0)
    random = np.random.default_rng(3)
    base = random.standard_normal(64)
    nearly = [base + 1e-6 * random.standard_normal(64) for _ in range(60)]
    rows = space.rows([vector.astype(np.float32) for vector in nearly], [None] * 60)
    index = Index(space)
    index.apply([RowKey(0, at) for at in range(60)], rows, [], {0: 60})
    live = {RowKey(0, at): row for at, row in enumerate(rows)}
    for k in (1, 10, 59):
        found = index.view.search(scanner, space.query(base, None), k)
        assert found == brute_force(live, space, base, k)


def test_oldest_first_eviction_keeps_no_chunk_it_does_not_need() -> None:
    index, live = Index(SPACES[Metric.COSINE]), Live()
    for position in range(500):
        gone = [RowKey(0, position - 10)] if position >= 10 else []
        apply(index, live, [(RowKey(0, position), np.ones(3, np.float32))], gone)
        assert len(index.view.segments) <= 3
    assert index.view.size == 10


def test_random_eviction_keeps_chunks_in_proportion_to_what_is_left() -> None:
    index, live = Index(SPACES[Metric.COSINE]), Live()
    random = np.random.default_rng(1)
    for position in range(1_000):
        apply(index, live, [(RowKey(0, position), np.ones(3, np.float32))])
        if len(live) > 40:
            keys = list(live)
            apply(index, live, [], [keys[int(random.integers(len(keys)))]])
        held = sum(len(segment.chunk.matrix) for segment in index.view.segments)
        assert held <= 2 * len(live) + 4 * 8
    assert [f.key for f in brute_force(live, index.view.space, np.ones(3), 50)] == sorted(live)


def test_removing_everything_leaves_an_index_that_can_be_filled_again(scanner: Scanner) -> None:
    index, live = Index(SPACES[Metric.COSINE]), Live()
    for start in (0, 100, 200):
        keys = [RowKey(0, start + at) for at in range(30)]
        apply(index, live, [(key, np.ones(3, np.float32)) for key in keys])
        query = index.view.space.query(np.ones(3), None)
        assert [found.key for found in index.view.search(scanner, query, 100)] == keys
        apply(index, live, [], keys)
        assert index.view.search(scanner, query, 10) == []
        assert index.view.size == 0


def test_a_view_has_a_searchers_own_epoch_and_positions() -> None:
    index = Index(SPACES[Metric.COSINE], epoch=7)
    before = index.view
    apply(index, Live(), [(RowKey(0, 3), np.ones(3, np.float32))], position=4)
    assert (before.positions, before.size) == ({}, 0)
    assert (index.view.positions, index.view.size, index.view.epoch) == ({0: 4}, 1, 7)


def test_readers_see_whole_views_while_a_writer_replaces_them(scanner: Scanner) -> None:
    # Every view holds positions first to last without a gap, so any answer can be checked.
    index = Index(SPACES[Metric.COSINE])
    keep, total = 40, 1_500
    done = threading.Event()
    problems: list[object] = []
    searched = [0, 0, 0]

    def read(reader: int) -> None:
        query = index.view.space.query(np.ones(3), None)
        try:
            while not done.is_set():
                view = index.view
                found = [f.key.position for f in view.search(scanner, query, total)]
                last = view.positions.get(0, 0)
                expected = list(range(max(0, last - keep), last))
                if found != expected:
                    problems.append((last, found))
                searched[reader] += 1
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            problems.append(error)

    readers = [threading.Thread(target=read, args=(at,)) for at in range(len(searched))]
    for thread in readers:
        thread.start()
    live = Live()
    for position in range(total):
        gone = [RowKey(0, position - keep)] if position >= keep else []
        apply(index, live, [(RowKey(0, position), np.ones(3))], gone, position + 1)
    done.set()
    for thread in readers:
        thread.join()
    assert problems == []
    assert all(searched)


@pytest.mark.parametrize("metric", list(Metric))
@given(
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    removed=st.sampled_from([0.0, 0.3]),
    k=st.integers(0, 60),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=30)
def test_only_rows_that_are_allowed_and_score_enough_are_found(
    metric: Metric, share: float, removed: float, k: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    index, live = Index(SPACES[metric]), Live()
    keys = [RowKey(int(random.integers(0, 2)), at) for at in range(50)]
    apply(index, live, list(zip(keys, vectors(random, 50, ties=seed % 2 == 0), strict=True)))
    apply(index, live, [], [key for key in keys if random.random() < removed])
    chosen = {key for key in keys if random.random() < share}

    def allowed(partitions: Any, positions: Any) -> Any:
        rows = zip(partitions.tolist(), positions.tolist(), strict=True)
        return np.array([key in chosen for key in rows], dtype=bool)

    vector = random.standard_normal(3).astype(np.float32)
    query = index.view.space.query(vector, None)
    some = {key: row for key, row in live.items() if key in chosen}
    expected = brute_force(some, index.view.space, vector, k)
    for scanner in (NumpyScanner(), installed_scanner()):
        assert index.view.search(scanner, query, k, allowed=allowed) == expected
        assert index.view.restricted(allowed).size == len(some)
        for least in [found.score for found in expected[:1] + expected[-1:]]:
            found = index.view.search(scanner, query, k, allowed=allowed, least=least)
            assert found == [one for one in expected if one.score >= least]
    assert index.view.search(scanner, query, 60) == brute_force(live, index.view.space, vector, 60)


class CountedScanner(NumpyScanner):
    """Says how often it was asked to scan many rows."""

    def __init__(self) -> None:
        self.scans = 0

    def top(self, matrix: Any, *arguments: Any) -> Any:
        self.scans += len(matrix) > 1_000
        return super().top(matrix, *arguments)


def allows(mask: Any) -> Any:
    return lambda partitions, positions: mask[positions]


def test_what_is_allowed_is_found_in_lists_and_where_it_is_not_near_by_comparing_it_all() -> None:
    pytest.importorskip("faiss")
    random = np.random.default_rng(6)
    n, space = 20_000, EmbeddingSpace(96, 32)
    cluster = random.integers(0, 200, n)
    within = random.standard_normal((200, 12))[cluster] + 0.6 * random.standard_normal((n, 12))
    made = within @ random.standard_normal((12, 128)) + 0.5 * random.standard_normal((n, 128))
    single = made.astype(np.float32)
    rows = space.rows(list(single[:, :96]), list(single[:, 96:]))
    trained = train(rows, space, n_probes=5, floor=0.95)
    assert trained is not None
    chunk = Chunk(rows, np.zeros(n, np.int64), np.arange(n))
    index = Index(space, base=Base(chunk, 1.0, trained.lists))
    late = [RowKey(0, at) for at in range(n, n + 500)]  # in no list
    index.apply(late, rows[:500] * np.float32(1.0001), [RowKey(0, at) for at in range(0, n, 9)], {})
    live = np.concatenate([np.arange(n) % 9 > 0, np.ones(500, dtype=bool)])
    everything = np.concatenate([rows, rows[:500] * np.float32(1.0001)])
    shares: dict[str, list[float]] = {}
    scans: dict[str, int] = {}
    for at in random.integers(n, size=20).tolist():
        query = space.query(*space.halves(rows[at]))
        exact = query.exact(everything)
        masks = {
            "most": random.random(n + 500) < 0.9,
            "half": random.random(n + 500) < 0.5,
            "all but its own cluster": np.append(cluster != cluster[at], np.zeros(500, dtype=bool)),
            "every other cluster": np.append(
                cluster % 2 == cluster[at] % 2, np.ones(500, dtype=bool)
            ),
            "few": random.random(n + 500) < 0.02,
            "all but the near": exact < np.quantile(exact, 0.9),
        }
        for name, mask in masks.items():
            scanner = CountedScanner()
            found = index.view.search(scanner, query, 10, allowed=allows(mask))
            matching = np.flatnonzero(mask & live)
            best = matching[np.lexsort((matching, -exact[matching]))[:10]].tolist()
            got = [one.key.position for one in found]
            assert len(set(got)) == 10
            assert set(got) <= set(matching.tolist())
            shares.setdefault(name, []).append(len(set(got) & set(best)) / 10)
            scans[name] = scans.get(name, 0) + scanner.scans
    assert {name for name, share in shares.items() if np.mean(share) < 0.95} == set()
    assert np.mean(shares["few"]) == np.mean(shares["all but the near"]) == 1.0
    assert scans.pop("all but its own cluster") > 5  # not all are far from others
    assert scans == {
        "most": 0,
        "half": 0,
        "every other cluster": 0,
        "few": 20,
        "all but the near": 20,
    }


def test_chunks_of_the_real_size_answer_as_brute_force_does(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    space = EmbeddingSpace(8, 4)
    random = np.random.default_rng(5)
    n = segments_module.CHUNK_ROWS + 500
    rows = space.rows(
        list(random.standard_normal((n, 8)).astype(np.float32)),
        list(random.standard_normal((n, 4)).astype(np.float32)),
    )
    index = Index(space)
    keys = [RowKey(0, at) for at in range(n)]
    index.apply(keys, rows, keys[1::7], {0: n})
    query = space.query(random.standard_normal(8), random.standard_normal(4))
    found = index.view.search(scanner, query, 25)
    kept = np.setdiff1d(np.arange(n), np.arange(n)[1::7])
    exact = query.exact(rows[kept])
    order = np.argsort(-exact, kind="stable")[:25]
    assert [f.key.position for f in found] == kept[order].tolist()
    assert [f.score for f in found] == exact[order].tolist()


def test_both_scanners_give_the_same_answer() -> None:
    faiss = pytest.importorskip("relive.index_service.scan").FaissScanner
    pytest.importorskip("faiss")
    index, live = Index(EmbeddingSpace(3, 0)), Live()
    random = np.random.default_rng(9)
    apply(index, live, [(RowKey(0, at), v) for at, v in enumerate(vectors(random, 90, True))])
    query = index.view.space.query(random.standard_normal(3), None)
    assert index.view.search(faiss(), query, 40) == index.view.search(NumpyScanner(), query, 40)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_a_copy_that_repeats_what_its_index_did_answers_the_same(seed: int) -> None:
    random = np.random.default_rng(seed)
    index = Index(EmbeddingSpace(3, 0))
    live: Live = {}
    keys = [RowKey(int(random.integers(2)), at) for at in range(60)]
    apply(index, live, list(zip(keys[:40], vectors(random, 40, ties=False), strict=True)))
    copy, steps = Index.copied(index.view), index.record()
    gone = [key for key in keys[:40] if random.random() < 0.5]
    apply(index, live, [], gone)
    late = list(zip(keys[40:], vectors(random, 20, ties=False), strict=True))
    apply(index, live, late, [key for key in keys[40:] if random.random() < 0.3], position=60)
    copy.repeat(steps)
    assert (copy.view.epoch, copy.view.size) == (index.view.epoch + 1, len(live))
    assert copy.view.positions == index.view.positions
    vector = random.standard_normal(3).astype(np.float32)
    query = index.view.space.query(vector, None)
    for k in (1, 5, 100):
        found = copy.view.search(NumpyScanner(), query, k)
        assert found == index.view.search(NumpyScanner(), query, k)
        assert len(found) == min(k, len(live))
