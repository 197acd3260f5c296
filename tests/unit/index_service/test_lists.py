"""Lists find the rows that count, whatever their codes; what is near comes first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relive.core.embedding import EmbeddingSpace, HybridMode, Metric
from relive.index_service.lists import Lists, Probes, read_lists
from relive.index_service.scan import Float32Array
from relive.index_service.training import train

SPACES = [
    EmbeddingSpace(24, 8),
    EmbeddingSpace(24, 9, Metric.EUCLIDEAN),
    EmbeddingSpace(33, 0),
    EmbeddingSpace(16, 16, mode=HybridMode.AVERAGE),
    EmbeddingSpace(16, 16, Metric.EUCLIDEAN, HybridMode.AVERAGE),
]
NAMES = [f"{s.metric}-{s.mode}-{s.visual_dim}-{s.text_dim}" for s in SPACES]


def clustered(space: EmbeddingSpace, count: int, seed: int = 0) -> Float32Array:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, space.visual_dim + space.text_dim))
    made = centres[np.arange(count) % 40] + 0.2 * random.standard_normal((count, centres.shape[1]))
    vectors = made.astype(np.float32)
    return space.rows(
        list(vectors[:, : space.visual_dim]),
        list(vectors[:, space.visual_dim :]) if space.text_dim else [None] * count,
    )


@pytest.fixture(scope="module", params=SPACES, ids=NAMES)
def lists(request: pytest.FixtureRequest) -> Lists:
    trained = train(clustered(request.param, 2_000), request.param, n_probes=4, floor=0.9)
    assert trained is not None
    return trained.lists


def all_lists(lists: Lists) -> Lists:
    """The same, all of them looked at."""
    m = lists.model
    return Lists(replace(m, probes=Probes(m.lists, m.lists, m.lists)), lists.index)


def test_every_row_is_in_one_list(lists: Lists) -> None:
    assert lists.count == 2_000
    query = lists.model.space.query(*lists.model.space.halves(clustered(lists.model.space, 1)[0]))
    everything = all_lists(lists)
    _, numbers = everything.top(everything.model.near(query), 5_000, None)
    assert sorted(numbers.tolist()) == list(range(2_000))


def test_only_rows_that_count_are_found(lists: Lists) -> None:
    random = np.random.default_rng(1)
    counts = random.random(2_000) < 0.3
    bits = np.packbits(counts, bitorder="little")
    rows = clustered(lists.model.space, 20, seed=5)
    for row in rows:
        query = lists.model.space.query(*lists.model.space.halves(row))
        everything = all_lists(lists)
        _, numbers = everything.top(everything.model.near(query), 5_000, bits)
        assert sorted(numbers.tolist()) == np.flatnonzero(counts).tolist()
        _, few = lists.top(lists.model.near(query), 10, bits)
        assert counts[few].all()
        assert len(few) == len(set(few.tolist())) <= 10


def test_more_rows_make_new_lists_and_leave_the_old_ones(lists: Lists) -> None:
    space = lists.model.space
    more = clustered(space, 300, seed=7)
    longer = lists.extended(more[:200]).extended(more[200:])
    assert (lists.count, longer.count) == (2_000, 2_300)
    found = 0
    for number, row in enumerate(more):
        query = space.query(*space.halves(row))
        _, numbers = longer.top(longer.model.near(query), 100, None)
        found += 2_000 + number in numbers
    assert found >= 290
    assert lists.model.no_rows().count == 0


def test_lists_are_read_as_they_were_written(lists: Lists, tmp_path: Path) -> None:
    lists.write(tmp_path / "lists")
    model = lists.model
    read = read_lists(tmp_path / "lists", model.space, model.probes, model.candidates)
    assert (read.count, read.model.lists) == (lists.count, model.lists)
    for row in clustered(model.space, 20, seed=5):
        query = model.space.query(*model.space.halves(row))
        ours, theirs = (
            lists.top(model.near(query), 50, None),
            read.top(read.model.near(query), 50, None),
        )
        assert (ours[0] == theirs[0]).all()
        assert (ours[1] == theirs[1]).all()
    more = clustered(model.space, 10, seed=8)
    assert read.extended(more).count == 2_010


def test_a_query_or_bits_that_do_not_fit_are_refused(lists: Lists) -> None:
    query = lists.model.space.query(*lists.model.space.halves(clustered(lists.model.space, 1)[0]))
    near = lists.model.near(query)
    with pytest.raises(ValueError, match="shape"):
        lists.top(near._replace(query=near.query[:, :-1]), 5, None)
    with pytest.raises(ValueError, match="bits"):
        lists.top(near, 5, np.zeros(10, dtype=np.uint8))


def test_a_query_of_one_embedding_looks_into_as_many_lists_as_it_needs() -> None:
    space = EmbeddingSpace(24, 8)
    rows = clustered(space, 1_000)
    trained = train(rows, space, n_probes=4, floor=0.9)
    assert trained is not None
    model = replace(trained.lists.model, probes=Probes(2, 3, 5))
    visual, text = space.halves(rows[0])
    widths = [
        model.near(query).lists.shape[1]
        for query in (
            space.query(visual, text),
            space.query(visual, None),
            space.query(None, text),
            space.query(visual, text, 0.65, 0.35),
            space.query(visual, text, 0.1, 0.9),
        )
    ]
    assert widths == [2, 3, 5, 2, 5]
    assert model.near(space.query(visual, text), widen=4).lists.shape[1] == min(8, model.lists)
