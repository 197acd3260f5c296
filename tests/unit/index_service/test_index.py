"""An index with a base and lists sees the same rows as a dict, and answers as a scan does."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.core.embedding import EmbeddingSpace, Metric
from relive.index_service import index as index_module
from relive.index_service import segments as segments_module
from relive.index_service import training
from relive.index_service import view as view_module
from relive.index_service.index import Base, Index
from relive.index_service.lists import Lists, Model, Probes
from relive.index_service.scan import Float32Array, NumpyScanner
from relive.index_service.segments import Chunk, RowKey
from relive.index_service.view import Found

SPACES = [EmbeddingSpace(8, 4), EmbeddingSpace(8, 4, Metric.EUCLIDEAN)]
SCANNER = NumpyScanner()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_module, "CHUNK_ROWS", 16)
    monkeypatch.setattr(index_module, "LIST_ROWS", 5)
    monkeypatch.setattr(view_module, "_MOST_CANDIDATES", 100.0)


def rows_of(space: EmbeddingSpace, count: int, seed: int) -> Float32Array:
    made = np.random.default_rng(seed).standard_normal((count, 12)).astype(np.float32)
    return space.rows(list(made[:, :8]), list(made[:, 8:]))


@pytest.fixture(scope="module", params=SPACES, ids=["cosine", "euclidean"])
def model(request: pytest.FixtureRequest) -> Model:
    """Of four lists, all looked at, with more candidates than there are rows: nothing is missed."""
    space = request.param
    rows = rows_of(space, 400, 1)
    empty = training._coder(rows, space, training._centres(rows, space, 4))
    return Model(space, empty, Probes(4, 4, 4), 1_000, 400)


def based(model: Model, keys: list[RowKey], rows: Float32Array) -> Index:
    """An index whose base has these rows."""
    keys, rows = [keys[at] for at in sorted_by_key(keys)], rows[sorted_by_key(keys)]
    columns = np.array(keys, dtype=np.int64).reshape(-1, 2).T
    lists = model.no_rows().extended(rows) if len(rows) else model.no_rows()
    return Index(model.space, 3, Base(Chunk(rows, *columns), 2.0, lists))


def sorted_by_key(keys: list[RowKey]) -> list[int]:
    return sorted(range(len(keys)), key=lambda at: keys[at])


def list_all(index: Index) -> None:
    while (found := index.unlisted()) is not None:
        more = found.chunk.matrix[found.lists.count : found.stop]
        index.adopt(found.chunk, found.lists.extended(more))


def brute_force(live: dict[RowKey, Float32Array], query: object, k: int) -> list[Found]:
    scored = [Found(key, float(query.exact(row[None, :])[0])) for key, row in live.items()]  # type: ignore[attr-defined]
    return sorted(scored, key=lambda f: (-f.score, f.key.position, f.key.partition))[:k]


@settings(max_examples=40)
@given(
    size=st.integers(1, 60),
    steps=st.lists(
        st.tuples(st.integers(0, 25), st.floats(0, 0.6), st.booleans(), st.booleans()), max_size=6
    ),
    k=st.integers(1, 80),
    seed=st.integers(0, 2**32),
)
def test_an_index_with_lists_answers_as_brute_force_does(
    model: Model, size: int, steps: list[tuple[int, float, bool, bool]], k: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    keys = [RowKey(int(random.integers(2)), position) for position in range(size)]
    rows = rows_of(model.space, size, seed)
    index, live = based(model, keys, rows), dict(zip(keys, rows, strict=True))
    followed, noted = Index.copied(index.view), index.record()
    position = size
    for count, share, oldest, listed in steps:
        added = [RowKey(int(random.integers(2)), position + at) for at in range(count)]
        position += count
        new = rows_of(model.space, count, position)
        live.update(zip(added, new, strict=True))
        candidates = list(live)
        if not oldest:
            candidates = [candidates[at] for at in random.permutation(len(candidates))]
        removed = candidates[: int(share * len(candidates))]
        for key in removed:
            del live[key]
        index.apply(added, new, removed, {0: position, 1: position})
        if listed:
            list_all(index)
        assert index.view.size == len(live)
        assert index.grown + index.view.segments[0].size == len(live)
        assert index.gone == size - index.view.segments[0].size
    followed.repeat(noted)
    some = rows_of(model.space, 3, 7)
    for row, halves in zip(some, [(0, 1), (0,), (1,)], strict=True):
        visual, text = model.space.halves(row)
        query = model.space.query(visual if 0 in halves else None, text if 1 in halves else None)
        expected = brute_force(live, query, k)
        assert index.view.search(SCANNER, query, k) == expected
        assert followed.view.search(SCANNER, query, k) == expected


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), size=st.integers(0, 40), kept=st.floats(0, 1))
def test_of_a_base_only_the_rows_that_the_state_has_count(
    model: Model, seed: int, size: int, kept: float
) -> None:
    random = np.random.default_rng(seed)
    keys = [RowKey(int(random.integers(3)), position) for position in range(size)]
    rows = rows_of(model.space, size, seed % 1_000)
    index = based(model, keys, rows)
    state = [key for key in keys if random.random() < kept]
    others = [RowKey(int(random.integers(3)), size + at) for at in range(5)]
    for partition in range(3):
        wanted = sorted(key.position for key in state + others if key.partition == partition)
        has = index.keep(partition, np.array(wanted, dtype=np.int64))
        assert [p for p, h in zip(wanted, has, strict=True) if h] == sorted(
            key.position for key in state if key.partition == partition
        )
    index.apply([], rows_of(model.space, 0, 0), [], {})
    live = dict(zip(keys, rows, strict=True))
    query = model.space.query(*model.space.halves(rows_of(model.space, 1, 9)[0]))
    found = index.view.search(SCANNER, query, 100)
    assert found == brute_force({key: live[key] for key in state}, query, 100)


def test_when_lists_hold_too_little_everything_is_scanned(model: Model) -> None:
    """Of lists that are looked at, all rows may be gone."""
    narrow = Model(model.space, model.empty, Probes(1, 1, 1), 1, 60)
    rows = rows_of(model.space, 60, 2)
    keys = [RowKey(0, at) for at in range(60)]
    index = based(narrow, keys, rows)
    query = model.space.query(*model.space.halves(rows[0]))
    near = narrow.near(query)
    _, there = Lists(narrow, index.view.segments[0].lists.index).top(near, 60, None)  # type: ignore[union-attr]
    index.apply([], rows[:0], [keys[at] for at in there.tolist()], {0: 60})
    left = {
        key: row for at, (key, row) in enumerate(zip(keys, rows, strict=True)) if at not in there
    }
    assert 0 < len(left) < 60
    for k in (1, 5, 60):
        found = index.view.search(SCANNER, query, k)
        assert len(found) == len({f.key for f in found}) == min(k, len(left))
    assert index.view.search(SCANNER, query, 60) == brute_force(left, query, 60)


def test_lists_of_another_model_or_of_a_chunk_that_is_gone_are_not_put_in_service(
    model: Model,
) -> None:
    index = based(model, [RowKey(0, 0)], rows_of(model.space, 1, 0))
    keys = [RowKey(0, 1 + at) for at in range(10)]
    index.apply(keys, rows_of(model.space, 10, 3), [], {0: 11})
    found = index.unlisted()
    assert found is not None
    lists = found.lists.extended(found.chunk.matrix[: found.stop])
    other = replace(model)
    index.adopt(found.chunk, Lists(other, lists.index))
    assert index.unlisted() is not None
    index.adopt(Chunk.empty(model.space.width), lists)
    assert index.unlisted() is not None
    index.adopt(found.chunk, lists)
    assert index.unlisted() is None
    assert index.view.segments[1].listed == 10


def test_without_a_model_nothing_is_put_in_lists() -> None:
    index = Index(SPACES[0])
    index.apply([RowKey(0, at) for at in range(40)], rows_of(SPACES[0], 40, 0), [], {0: 40})
    assert index.unlisted() is None
    assert not index.view.approximate
