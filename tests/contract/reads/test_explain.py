"""What `explain` promises, of the buffer and of the client alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relive.core.explanation import Explanation, KnownOutcome
from relive.errors import InvalidQuery, UnknownRetrieval

NOW_S = 1_800_000_000.0


def test_a_sample_is_explained_with_what_has_come_of_it(
    reads: Any, make_experiences: Callable[..., list[Any]]
) -> None:
    reads.buffer.add_many(make_experiences(20))
    batch = reads.sample(5, seed=3, now=NOW_S)
    reads.report(batch.retrieval_id, batch[0].id, success=True, reward=0.5, revision=7)
    reads.report(batch.retrieval_id, batch[1].id, success=False, revision=8)
    reads.make_retrievals_count()
    reads.buffer.remove(batch[2].id)
    reads.get("x0")  # so that a service has read all this

    found = reads.via.explain(batch.retrieval_id)
    assert isinstance(found, Explanation)
    assert (found.retrieval_id, found.kind, found.seed) == (batch.retrieval_id, "sample", 3)
    assert found.now == NOW_S
    assert found.positions == dict(batch.positions)
    items = {item.id: item for item in found.items}
    assert items.keys() == set(batch.ids)
    for drawn in batch:
        item = items[drawn.id]
        assert item.score == pytest.approx(drawn.probability)
        assert item.then is not None
        assert item.then.priority == pytest.approx(drawn.experience.priority)
    assert items[batch[0].id].outcome == KnownOutcome(True, 0.5, 7)
    assert items[batch[1].id].outcome == KnownOutcome(False, None, 8)
    assert items[batch[3].id].outcome is None
    assert items[batch[2].id].now is None
    now = items[batch[0].id].now
    assert now is not None
    assert (now.retrieval_count, now.success_count, now.success_rate) == (1, 1, 1.0)


def test_a_search_is_explained_by_its_scores(
    reads: Any, make_experiences: Callable[..., list[Any]]
) -> None:
    reads.buffer.add_many(make_experiences(20))
    result = reads.search(visual=[1.0] * 8, k=3)
    reads.make_retrievals_count()
    found = reads.via.explain(result.retrieval_id)
    assert found.kind == "search"
    assert {item.id: item.score for item in found.items} == {hit.id: hit.score for hit in result}


def test_a_retrieval_that_only_an_outcome_cites_is_known_so_far(
    reads: Any, make_experiences: Callable[..., list[Any]]
) -> None:
    reads.buffer.add_many(make_experiences(3))
    reads.report("elsewhere", "x1", success=True, revision=1)
    found = reads.via.explain("elsewhere")
    assert (found.kind, found.seed) == (None, None)
    (item,) = found.items
    assert (item.id, item.score, item.then) == ("x1", None, None)
    assert item.outcome == KnownOutcome(True, None, 1)


def test_both_ways_say_the_same(both: Any, make_experiences: Callable[..., list[Any]]) -> None:
    embedded, client = both
    embedded.buffer.add_many(make_experiences(20))
    batch = client.sample(4)
    client.make_retrievals_count()
    client.report(batch.retrieval_id, batch[0].id, success=True)
    embedded.buffer.flush()
    client.get(batch[0].id)
    assert client.via.explain(batch.retrieval_id) == embedded.via.explain(batch.retrieval_id)


def test_what_nobody_retrieved_is_unknown(reads: Any) -> None:
    with pytest.raises(UnknownRetrieval, match="never"):
        reads.via.explain("never")
    with pytest.raises(InvalidQuery):
        reads.via.explain("")
    with pytest.raises(InvalidQuery):
        reads.via.explain(7)
