"""The embedded buffer: the public API, over a real directory."""

import copy
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.consumers import Materializer, MemoryStore, Snapshots
from relive.core.results import Token
from relive.errors import (
    BufferClosed,
    DuplicateExperience,
    InvalidConfig,
    InvalidExperience,
    InvalidQuery,
    LogUnavailable,
    PayloadTooLarge,
    ReliveError,
    StoreIncompatible,
    StoreInUse,
)
from relive.index_service import Engine
from relive.log import NewRecord, open_log
from relive.log.memory import MemoryLog


def config(**values: Any) -> BufferConfig:
    return BufferConfig(faiss_backend="cpu", **values)


def open_buffer(path: Path, **values: Any) -> ExperienceBuffer:
    return ExperienceBuffer.open(path, config(**values))


def experience(experience_id: str | None = None, **fields: Any) -> Experience:
    return Experience(id=experience_id, **{"visual": [1.0, 2.0, 3.0], **fields})


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[ExperienceBuffer]:
    with open_buffer(tmp_path / "buffer") as buffer:
        yield buffer


def state_of(buffer: ExperienceBuffer) -> tuple[Any, ...]:
    stats = buffer.stats()
    return buffer.ids(), stats.additions, stats.quarantined, stats.conflicts, stats.digest


# Adding and reading back


def test_what_was_added_is_found_at_once(buffer: ExperienceBuffer) -> None:
    token = buffer.add(experience("x", text=[1.0], question="?", total_reward=0.5))
    assert (token.id, token.partition) == ("x", 0)
    assert len(buffer) == 1
    assert "x" in buffer
    assert buffer.ids() == ["x"]
    assert [hit.id for hit in buffer.search(visual=[1.0, 2.0, 3.0])] == ["x"]
    assert [item.id for item in buffer.sample(5)] == ["x"]
    got = buffer.get("x")
    assert got is not None
    assert (got.question, got.total_reward) == ("?", 0.5)


def test_every_addition_is_found_by_the_very_next_search(buffer: ExperienceBuffer) -> None:
    buffer.add_many(experience(visual=[0.0, 0.0, 1.0]) for _ in range(500))
    for n in range(200):
        vector = [math.cos(n / 100), math.sin(n / 100), 0.0]
        token = buffer.add(experience(visual=vector))
        assert buffer.search(visual=vector, k=1)[0].id == token.id


def test_an_id_is_made_where_none_is_given(buffer: ExperienceBuffer) -> None:
    first, second = buffer.add(experience()), buffer.add(experience())
    assert first.id != second.id
    assert buffer.ids() == [first.id, second.id]


def test_documents_keep_their_types(buffer: ExperienceBuffer) -> None:
    document = {"n": 1, "f": 1.0, "b": True, "none": None, "ü": ["", {"deep": [-0.0, 2**63]}]}
    buffer.add(experience("x", trajectory=[document, {}], final_answer=document, metadata=document))
    got = buffer.get("x")
    assert got is not None
    assert repr(got.trajectory) == repr([document, {}])
    assert repr(got.final_answer) == repr(document)
    assert repr(got.metadata) == repr(document)


def test_all_fields_come_back(buffer: ExperienceBuffer) -> None:
    given = Experience(
        id="x",
        visual=np.array([0.5, -1.0, 2.0]),
        text=[0.25],
        question="?",
        trajectory=[{"action": 1}],
        total_reward=-2.0,
        model_confidence=0.125,
        final_answer="4",
        metadata={"m": 1},
        initial_priority=0.5,
        episode_id="e",
        step=7,
        input_uri="file:/x",
        input_sha256=bytes(range(32)),
        timestamp=123,
    )
    buffer.add(given)
    got = buffer.get("x")
    assert got is not None
    for name in set(given.__slots__) - {"visual", "text", "priority"}:
        assert getattr(got, name) == getattr(given, name), name
    assert np.asarray(got.visual).tolist() == [0.5, -1.0, 2.0]
    assert np.asarray(got.text).tolist() == [0.25]
    assert got.priority == pytest.approx(0.5 - 0.2, abs=1e-6)  # given, and very old


def test_what_was_read_can_be_added_again_without_effect(buffer: ExperienceBuffer) -> None:
    token = buffer.add(experience("x", timestamp=5))
    buffer.search(visual=[1.0, 0.0, 0.0])
    buffer.flush()
    got = buffer.get("x")
    assert got is not None
    assert buffer.add(got) == token
    assert buffer.stats().additions == 1


def test_float32_float64_and_lists_are_the_same(buffer: ExperienceBuffer) -> None:
    values = [0.1, 0.2, 0.3]
    token = buffer.add(experience("x", visual=values))
    for form in (np.array(values, np.float32), np.array(values), np.array(values, np.float32)[::1]):
        assert buffer.add(experience("x", visual=form)) == token
        (hit,) = buffer.search(visual=form)
        assert hit.score == pytest.approx(1.0)


def test_time_is_now_unless_given(buffer: ExperienceBuffer) -> None:
    buffer.add_many([experience("now"), experience("then", timestamp=0)])
    now, then = buffer.get("now"), buffer.get("then")
    assert now is not None
    assert then is not None
    assert (now.timestamp or 0) > 1_600_000_000_000_000
    assert then.timestamp == 0
    assert now.priority == pytest.approx(0.2, abs=1e-4)
    assert then.priority == pytest.approx(0.01)


def test_many_are_added_in_order(buffer: ExperienceBuffer) -> None:
    names = [f"x{n}" for n in range(300)]
    tokens = buffer.add_many(experience(name) for name in names)
    assert [token.id for token in tokens] == names == buffer.ids()
    assert len({token.position for token in tokens}) == 300
    assert buffer.add_many([]) == []


# The same id again


def test_the_same_content_again_is_no_addition(buffer: ExperienceBuffer) -> None:
    token = buffer.add(experience("x", timestamp=1))
    assert buffer.add(experience("x", timestamp=2)) == token
    assert buffer.add_many([experience("x"), experience("y"), experience("y")])[0] == token
    assert buffer.stats().additions == 2
    assert buffer.stats().positions == {0: 3}


def test_other_content_under_a_known_id_is_refused_and_changes_nothing(
    buffer: ExperienceBuffer,
) -> None:
    buffer.add(experience("x"))
    before = state_of(buffer)
    with pytest.raises(DuplicateExperience) as refused:
        buffer.add(experience("x", question="other"))
    assert refused.value.experience_id == "x"
    with pytest.raises(DuplicateExperience):
        buffer.add_many([experience("new"), experience("x", question="other")])
    with pytest.raises(DuplicateExperience):
        buffer.add_many([experience("new"), experience("new", question="other")])
    assert state_of(buffer) == before


def test_what_was_evicted_meanwhile_is_an_addition_again(tmp_path: Path) -> None:
    with open_buffer(tmp_path, capacity=1) as buffer:
        for n in range(100):
            buffer.add(experience(f"a{n}"))
            buffer.add(experience(f"b{n}"))
            buffer.add(experience(f"a{n}"))
            assert buffer.ids() == [f"a{n}"]
        assert buffer.stats().additions == 300


def test_what_was_removed_is_an_addition_again(buffer: ExperienceBuffer) -> None:
    for n in range(30):
        buffer.add(experience("x", question=str(n)))
        assert buffer.remove("x")
        buffer.add(experience("x", question=str(n)))
        assert buffer.ids() == ["x"]
        assert buffer.remove("x")


def test_threads_that_add_the_same_id_agree_on_one(buffer: ExperienceBuffer) -> None:
    tokens: list[Token] = []
    refused: list[Exception] = []

    def add(thread: int) -> None:
        for n in range(60):
            try:
                # In opposite orders, so that each waits for the other's.
                ids = [f"x{n}", f"y{n}", f"z{n}"][:: 1 if thread % 2 else -1]
                mine = str(thread % 2) if n % 3 == 0 else ""
                tokens.extend(buffer.add_many(experience(i, question=mine) for i in ids))
            except DuplicateExperience as error:
                refused.append(error)

    threads = [threading.Thread(target=add, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    stats = buffer.stats()
    assert (stats.size, stats.additions, stats.conflicts, stats.quarantined) == (180, 180, 0, 0)
    assert len({(token.id, token.position) for token in tokens}) == 180
    assert len(refused) == 2 * 20  # where contents differed, one of the two was first


# Refusals


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"visual": [1.0, 2.0]}, "visual"),
        ({"visual": [1.0, math.nan, 2.0]}, "visual[1]"),
        ({"visual": [math.inf, 1.0, 2.0]}, "visual[0]"),
        ({"visual": None}, "visual, text"),
        ({"model_confidence": 1.5}, "model_confidence"),
        ({"total_reward": math.inf}, "total_reward"),
        ({"metadata": {"a": (1,)}}, "metadata"),
        ({"id": ""}, "id"),
        ({"timestamp": -1}, "timestamp"),
    ],
    ids=repr,
)
def test_what_is_refused_changes_nothing_and_names_the_field(
    buffer: ExperienceBuffer, change: dict[str, Any], field: str
) -> None:
    buffer.add(experience("x"))
    before = state_of(buffer)
    bad = Experience(**{"id": "bad", "visual": [1.0, 2.0, 3.0], **change})
    for attempt in (lambda: buffer.add(bad), lambda: buffer.add_many([experience("good"), bad])):
        with pytest.raises(InvalidExperience) as refused:
            attempt()
        assert refused.value.field == field
    assert state_of(buffer) == before


def test_the_first_experience_fixes_the_dimension_and_a_refused_one_does_not(
    buffer: ExperienceBuffer,
) -> None:
    with pytest.raises(PayloadTooLarge):
        buffer.add(Experience(visual=[1.0] * 8, question="?" * 1_000_001))
    with pytest.raises(InvalidExperience):
        buffer.add(Experience(visual=[1.0] * 7, model_confidence=2.0))
    with pytest.raises(InvalidExperience):
        buffer.add_many([Experience(visual=[1.0] * 6), Experience(visual=[1.0] * 5)])
    buffer.add(Experience(visual=[1.0] * 4))
    buffer.add(Experience(text=[1.0] * 2))
    with pytest.raises(InvalidExperience, match="this buffer has 4"):
        buffer.add(Experience(visual=[1.0] * 8))
    with pytest.raises(InvalidExperience, match="this buffer has 2"):
        buffer.add(Experience(visual=[1.0] * 4, text=[1.0] * 3))
    assert buffer.stats().quarantined == 0


def test_threads_that_come_first_agree_on_the_dimension(tmp_path: Path) -> None:
    for attempt in range(10):
        with open_buffer(tmp_path / str(attempt)) as buffer:
            start = threading.Barrier(4)
            added: list[int] = []

            def add(
                dim: int, buffer: ExperienceBuffer = buffer, start: Any = start, added: Any = added
            ) -> None:
                start.wait()
                try:
                    buffer.add(Experience(visual=[1.0] * dim))
                    added.append(dim)
                except InvalidExperience:
                    pass

            threads = [threading.Thread(target=add, args=(dim,)) for dim in (2, 3, 4, 5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(added) == len(buffer) == 1
            assert buffer.stats().quarantined == 0


def test_an_average_of_different_dimensions_is_refused_at_the_door(tmp_path: Path) -> None:
    with open_buffer(tmp_path, hybrid_mode="average") as buffer:
        buffer.add(Experience(id="a", visual=[1.0] * 4))
        with pytest.raises(InvalidExperience, match="shared space"):
            buffer.add(Experience(id="b", text=[1.0] * 5))
        buffer.add(Experience(id="c", text=[1.0] * 4))
        assert [hit.id for hit in buffer.search(text=[1.0] * 4)] == ["a", "c"]
    with pytest.raises(InvalidConfig):
        open_buffer(tmp_path, hybrid_mode="average", text_dim=5)


def test_too_large_an_event_is_refused_before_anything_is_sent(buffer: ExperienceBuffer) -> None:
    with pytest.raises(PayloadTooLarge) as refused:
        buffer.add_many([experience("small"), experience("large", question="?" * 1_000_000)])
    assert refused.value.size > refused.value.limit
    assert len(buffer) == 0
    buffer.add(experience("small"))
    assert buffer.stats().positions == {0: 2}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "visual, text"),
        ({"visual": [1.0, 2.0]}, "visual"),
        ({"visual": [[1.0, 2.0, 3.0]]}, "visual"),
        ({"visual": [1.0, math.nan, 1.0]}, "visual[1]"),
        ({"visual": [1.0, 2.0, 3.0], "k": -1}, "k"),
        ({"visual": [1.0, 2.0, 3.0], "k": 100_001}, "k"),
        ({"visual": [1.0, 2.0, 3.0], "k": 1.0}, "k"),
        ({"visual": [1.0, 2.0, 3.0], "k": True}, "k"),
        ({"visual": [1.0, 2.0, 3.0], "visual_weight": -1.0}, "visual_weight"),
        ({"visual": [1.0, 2.0, 3.0], "visual_weight": "1"}, "visual_weight"),
    ],
    ids=repr,
)
def test_a_search_that_makes_no_sense_is_refused_by_name(
    buffer: ExperienceBuffer, arguments: dict[str, Any], field: str
) -> None:
    buffer.add(experience("x"))
    with pytest.raises(InvalidQuery) as refused:
        buffer.search(**arguments)
    assert refused.value.field == field
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"n": -1}, "n"),
        ({"n": 100_001}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"n": 1, "seed": -1}, "seed"),
        ({"n": 1, "seed": 2**63}, "seed"),
        ({"n": 1, "seed": 1.0}, "seed"),
        ({"n": 1, "alpha": -0.1}, "alpha"),
        ({"n": 1, "alpha": math.nan}, "alpha"),
        ({"n": 1, "alpha": "1"}, "alpha"),
        ({"n": 1, "beta": math.inf}, "beta"),
        ({"n": 1, "now": -1.0}, "now"),
        ({"n": 1, "now": math.nan}, "now"),
        ({"n": 1, "now": "today"}, "now"),
        ({"n": 1, "strategy": "best"}, "strategy"),
    ],
    ids=repr,
)
def test_a_sample_that_makes_no_sense_is_refused_by_name(
    buffer: ExperienceBuffer, arguments: dict[str, Any], field: str
) -> None:
    buffer.add(experience("x"))
    with pytest.raises(InvalidQuery) as refused:
        buffer.sample(**arguments)
    assert refused.value.field == field


def test_ids_that_cannot_be_are_not_there(buffer: ExperienceBuffer) -> None:
    assert "\ud800" not in buffer
    assert 3 not in buffer
    assert buffer.get("\ud800") is None
    with pytest.raises(InvalidQuery):
        buffer.get(3)  # type: ignore[arg-type]
    for bad in (3, "", "\ud800"):
        with pytest.raises(InvalidExperience):
            buffer.remove(bad)  # type: ignore[arg-type]


# Searching


def test_a_new_buffer_answers_every_question_with_nothing(buffer: ExperienceBuffer) -> None:
    assert len(buffer.search(visual=[1.0, 2.0], text=[3.0])) == 0
    assert len(buffer.sample(10)) == 0
    assert (len(buffer), buffer.ids(), buffer.get("x")) == (0, [], None)
    assert not buffer.remove("x")
    buffer.clear()
    buffer.flush()


def test_a_kind_of_embedding_that_nothing_has_yet_may_be_asked_for(
    buffer: ExperienceBuffer,
) -> None:
    buffer.add_many([Experience(id=f"x{n}", text=[1.0, float(n)]) for n in range(3)])
    hits = buffer.search(visual=[1.0] * 5, text=[1.0, 0.0])
    assert [hit.id for hit in hits] == ["x0", "x1", "x2"]
    assert [hit.id for hit in buffer.search(visual=[1.0] * 5, k=2)] == ["x0", "x1"]


def test_a_search_returns_as_many_as_can_be(buffer: ExperienceBuffer) -> None:
    names = [token.id for token in buffer.add_many(experience() for _ in range(30))]
    for k in (0, 1, 29, 30, 31, np.int64(5), 100_000):
        hits = buffer.search(visual=[1.0, 2.0, 3.0], k=k)  # type: ignore[arg-type]
        assert [hit.id for hit in hits] == names[: int(k)]


def test_a_query_is_not_modified(buffer: ExperienceBuffer) -> None:
    buffer.add(experience())
    query = np.array([3.0, 4.0, 0.0], np.float32)
    buffer.search(visual=query)
    assert query.tolist() == [3.0, 4.0, 0.0]


def test_the_metric_and_the_weights_are_those_configured(tmp_path: Path) -> None:
    values = {"similarity_metric": "euclidean", "visual_weight": 1.0, "text_weight": 3.0}
    with open_buffer(tmp_path, **values) as buffer:
        buffer.add(Experience(id="a", visual=[0.0, 0.0], text=[2.0]))
        (hit,) = buffer.search(visual=[3.0, 4.0], text=[0.0])
        assert hit.score == pytest.approx(-(0.25 * 25 + 0.75 * 4))
        (hit,) = buffer.search(visual=[3.0, 4.0], text=[0.0], visual_weight=1, text_weight=1)
        assert hit.score == pytest.approx(-(0.5 * 25 + 0.5 * 4))


# What comes of it


def test_a_retrieval_counts_once_per_experience_after_a_flush(buffer: ExperienceBuffer) -> None:
    buffer.add_many([experience("x"), experience("y", visual=[-1.0, 0.0, 0.0])])
    result = buffer.search(visual=[1.0, 2.0, 3.0], k=1)
    batch = buffer.sample(8, replace=True)
    buffer.flush()
    x, y = buffer.get("x"), buffer.get("y")
    assert x is not None
    assert y is not None
    sampled = {item.id for item in batch}
    assert x.retrieval_count == 1 + ("x" in sampled)
    assert y.retrieval_count == int("y" in sampled)
    assert result.retrieval_id != batch.retrieval_id
    assert buffer.stats().retrievals_lost == 0


def test_outcomes_count_and_the_latest_holds(buffer: ExperienceBuffer) -> None:
    buffer.add(experience("x"))
    result = buffer.search(visual=[1.0, 2.0, 3.0])
    buffer.report_outcome(result.retrieval_id, "x", success=True, reward=1.0)
    first = buffer.get("x")
    buffer.report_outcome(result.retrieval_id, "x", success=False)
    second = buffer.get("x")
    buffer.report_outcome("another", "x", success=True)
    third = buffer.get("x")
    for got, counts in ((first, (1, 1, 1.0)), (second, (1, 0, 0.0)), (third, (2, 1, 0.5))):
        assert got is not None
        assert (got.retrieval_count, got.success_count, got.success_rate) == counts
    buffer.flush()
    assert buffer.stats().retrievals == 2


def test_without_recording_only_outcomes_count(tmp_path: Path) -> None:
    with open_buffer(tmp_path, record_retrievals=False) as buffer:
        buffer.add(experience("x"))
        for n in range(5):
            result = buffer.search(visual=[1.0, 2.0, 3.0])
            if n < 2:
                buffer.report_outcome(result.retrieval_id, "x", success=True)
        buffer.flush()
        got = buffer.get("x")
        assert got is not None
        assert (got.retrieval_count, got.success_count) == (2, 2)


def test_what_was_found_can_be_looked_at_after_it_is_gone_and_the_buffer_closed(
    tmp_path: Path,
) -> None:
    with open_buffer(tmp_path, record_retrievals=False) as buffer:
        buffer.add(experience("x", question="?"))
        buffer.flush()  # so that its record lies in a file
        (hit,), (item,) = buffer.search(visual=[1.0, 2.0, 3.0], k=1), buffer.sample(1)
        buffer.remove("x")
        buffer.flush()
    for found in (copy.deepcopy(hit).experience, copy.deepcopy(item).experience):
        assert (found.id, found.question) == ("x", "?")
        np.testing.assert_array_equal(found.visual, [1.0, 2.0, 3.0])


def test_an_outcome_may_come_before_its_experience(buffer: ExperienceBuffer) -> None:
    buffer.report_outcome(None, "later", success=True)
    assert buffer.stats().parked == 1
    buffer.add(experience("later"))
    got = buffer.get("later")
    assert got is not None
    assert got.success_count == 1
    assert buffer.stats().parked == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("r", "", {"success": True}), "experience_id"),
        (("", "x", {"success": True}), "retrieval_id"),
        (("r", "x", {"success": 1}), "success"),
        (("r", "x", {"success": True, "reward": math.nan}), "reward"),
        (("r", "x", {"success": True, "revision": 1.0}), "revision"),
    ],
    ids=repr,
)
def test_an_outcome_that_makes_no_sense_is_refused_by_name(
    buffer: ExperienceBuffer, arguments: tuple[str, str, dict[str, Any]], field: str
) -> None:
    retrieval_id, experience_id, rest = arguments
    with pytest.raises(InvalidExperience) as refused:
        buffer.report_outcome(retrieval_id, experience_id, **rest)
    assert refused.value.field == field


# Sampling


def test_a_sample_can_be_drawn_again(buffer: ExperienceBuffer) -> None:
    buffer.add_many(experience(f"x{n}", total_reward=n / 10) for n in range(50))
    batch = buffer.sample(10, alpha=0.7, beta=0.5)
    again = buffer.sample(10, alpha=0.7, beta=0.5, seed=batch.seed, now=batch.now)
    assert [(i.id, i.probability, i.weight) for i in batch] == [
        (i.id, i.probability, i.weight) for i in again
    ]
    assert batch.now == again.now


@pytest.mark.parametrize("now", [0.0, 1_700_000_000.123457, 1_750_000_000.999999, 12.000001])
def test_the_time_that_a_batch_reports_gives_the_same_batch(
    buffer: ExperienceBuffer, now: float
) -> None:
    buffer.add(experience("x", timestamp=0))
    batch = buffer.sample(1, now=now, seed=1)
    again = buffer.sample(1, now=batch.now, seed=1)
    assert batch.now == again.now == pytest.approx(now, abs=1e-6)
    assert batch[0].experience.priority == again[0].experience.priority


def test_probabilities_are_those_of_the_priorities(buffer: ExperienceBuffer) -> None:
    buffer.add_many(experience(f"x{n}", total_reward=float(n), timestamp=10**15) for n in range(6))
    batch = buffer.sample(6, now=1e9, seed=1)
    priorities = {item.id: item.experience.priority or 0.0 for item in batch}
    assert priorities["x2"] == pytest.approx(0.4 * 0.5 + 0.4 * 2)
    for item in batch:
        assert item.probability == pytest.approx(priorities[item.id] / sum(priorities.values()))


def test_strategies_that_rank_return_the_ranked(buffer: ExperienceBuffer) -> None:
    buffer.add_many(experience(f"x{n}", total_reward=float(n % 3)) for n in range(6))
    assert [i.id for i in buffer.sample(2, strategy="fifo")] == ["x0", "x1"]
    assert [i.id for i in buffer.sample(2, strategy="lifo")] == ["x5", "x4"]
    assert {i.id for i in buffer.sample(2, strategy="highest_priority")} == {"x2", "x5"}
    assert len(buffer.sample(3, strategy="uniform")) == 3


def test_a_very_large_alpha_still_gives_a_full_batch(buffer: ExperienceBuffer) -> None:
    buffer.add_many(experience(f"x{n}", total_reward=n / 100) for n in range(20))
    batch = buffer.sample(20, alpha=10_000.0, beta=1.0)
    assert sorted(item.id for item in batch) == sorted(buffer.ids())


# Removing


def test_what_was_removed_is_gone_from_everywhere_and_stays_gone(tmp_path: Path) -> None:
    with open_buffer(tmp_path) as buffer:
        buffer.add_many(experience(f"x{n}") for n in range(3))
        assert buffer.remove("x1", "wrong label")
        assert not buffer.remove("x1")
        assert_gone(buffer, "x1", ["x0", "x2"])
    with open_buffer(tmp_path) as buffer:
        assert_gone(buffer, "x1", ["x0", "x2"])
        assert buffer.stats().removals == 1


def assert_gone(buffer: ExperienceBuffer, gone: str, left: list[str]) -> None:
    assert gone not in buffer
    assert buffer.get(gone) is None
    assert buffer.ids() == left
    assert [hit.id for hit in buffer.search(visual=[1.0, 2.0, 3.0])] == left
    assert sorted(item.id for item in buffer.sample(10)) == left
    stats = buffer.stats()
    assert stats.size == stats.index_size == len(buffer) == len(left)


def test_clearing_removes_all_but_what_was_counted(tmp_path: Path) -> None:
    with open_buffer(tmp_path) as buffer:
        buffer.add_many(experience(f"x{n}") for n in range(5))
        buffer.clear("a new task")
        assert (len(buffer), buffer.ids()) == (0, [])
        assert len(buffer.search(visual=[1.0, 2.0, 3.0])) == 0
        buffer.add(experience("x0", question="other content now"))
        assert buffer.stats().additions == 6
    with open_buffer(tmp_path) as buffer:
        assert buffer.ids() == ["x0"]
        assert buffer.stats().additions == 6


def test_the_oldest_are_evicted_and_the_lowest_on_request(tmp_path: Path) -> None:
    with open_buffer(tmp_path / "oldest", capacity=3) as buffer:
        buffer.add_many(experience(f"x{n}") for n in range(10))
        assert_gone(buffer, "x6", ["x7", "x8", "x9"])
        assert buffer.stats().evictions == 7
    with open_buffer(tmp_path / "lowest", capacity=2, eviction_policy="lowest_priority") as buffer:
        rewards = [3.0, 1.0, 5.0, 2.0, 4.0]
        buffer.add_many(experience(f"x{n}", total_reward=r) for n, r in enumerate(rewards))
        assert buffer.ids() == ["x2", "x4"]


# Opening and closing


def test_all_is_there_after_reopening(tmp_path: Path) -> None:
    with open_buffer(tmp_path) as buffer:
        buffer.add_many(experience(f"x{n}", visual=[1.0, float(n), 0.0]) for n in range(50))
        buffer.report_outcome("r", "x3", success=True)
        buffer.remove("x4")
        before = state_of(buffer)
        result = [(hit.id, hit.score) for hit in buffer.search(visual=[1.0, 7.0, 0.0], k=50)]
    with open_buffer(tmp_path, record_retrievals=False) as buffer:
        assert (buffer.ids(), buffer.stats().additions) == before[:2]
        again = buffer.search(visual=[1.0, 7.0, 0.0], k=50)
        assert [(hit.id, hit.score) for hit in again] == result
        got = buffer.get("x3")
        assert got is not None
        assert got.success_count == 1


@pytest.mark.parametrize("backend", ["lmdb", "file"])
def test_the_state_may_be_kept_in_either_backend(tmp_path: Path, backend: str) -> None:
    with open_buffer(tmp_path, persistence_backend=backend, capacity=5) as buffer:
        for number in range(8):
            buffer.add(experience(f"x{number}", visual=[float(number), 1.0]))
        before = state_of(buffer)
    assert f" {backend}\n" in (tmp_path / "state" / "store").read_text()
    with open_buffer(tmp_path, persistence_backend=backend) as buffer:
        assert state_of(buffer) == before
        assert buffer.search(visual=[7.0, 1.0], k=1)[0].id == "x7"
        buffer.add(experience("x8", visual=[8.0, 1.0]))
        assert buffer.ids() == ["x4", "x5", "x6", "x7", "x8"]


def test_a_state_of_another_backend_is_refused_and_the_log_rebuilds_it(tmp_path: Path) -> None:
    with open_buffer(tmp_path) as buffer:
        buffer.add(experience("x"))
        before = state_of(buffer)
    with pytest.raises(StoreIncompatible, match="persistence_backend lmdb, not file"):
        open_buffer(tmp_path, persistence_backend="file")
    shutil.rmtree(tmp_path / "state")
    with open_buffer(tmp_path, persistence_backend="file") as buffer:
        assert state_of(buffer) == before


def test_the_state_is_the_one_that_the_log_gives(tmp_path: Path) -> None:
    with open_buffer(tmp_path, capacity=20) as buffer:
        for n in range(60):
            buffer.add(experience(f"x{n}", text=[1.0, 2.0] if n % 2 else None))
            if n % 7 == 0:
                buffer.report_outcome("r", f"x{n}", success=True)
        buffer.sample(5)
        buffer.flush()
        digest = buffer.stats().digest
    log = open_log(f"file:{tmp_path}")
    replayed = Materializer(log, MemoryStore())
    replayed.catch_up()
    assert replayed.digest() == digest
    replayed.close()
    log.close()


def test_other_settings_are_put_in_force_when_reopening(tmp_path: Path) -> None:
    with open_buffer(tmp_path, capacity=5) as buffer:
        buffer.add_many(experience(f"x{n}") for n in range(8))
        assert buffer.ids() == ["x3", "x4", "x5", "x6", "x7"]
    with open_buffer(tmp_path) as buffer:  # nothing explicit, nothing changes
        assert buffer.stats().capacity == 5
    with open_buffer(tmp_path, capacity=2) as buffer:
        assert_gone(buffer, "x5", ["x6", "x7"])
    with open_buffer(tmp_path, capacity=50, eviction_policy="lowest_priority") as buffer:
        assert buffer.ids() == ["x6", "x7"]
        assert buffer.stats().capacity == 50
        positions = buffer.stats().positions
    with open_buffer(tmp_path, capacity=50) as buffer:
        assert buffer.stats().positions == positions
    with pytest.raises(InvalidConfig, match="this buffer has 3, fixed at creation"):
        open_buffer(tmp_path, visual_dim=4)


def test_what_is_only_about_comparing_may_differ_at_every_opening(tmp_path: Path) -> None:
    with open_buffer(tmp_path) as buffer:
        buffer.add(Experience(id="a", visual=[0.0, 2.0]))
    with open_buffer(tmp_path, similarity_metric="euclidean") as buffer:
        assert buffer.search(visual=[0.0, 1.0])[0].score == pytest.approx(-0.7)


def test_an_opening_that_fails_lets_go_of_everything(tmp_path: Path) -> None:
    with open_buffer(tmp_path) as buffer:
        buffer.add(Experience(id="a", visual=[1.0] * 2, text=[1.0] * 3))
    before = len(os.listdir("/proc/self/fd"))
    for values in ({"hybrid_mode": "average"}, {"visual_dim": 9}):
        with pytest.raises(InvalidConfig):
            open_buffer(tmp_path, **values)
        assert len(os.listdir("/proc/self/fd")) == before
    assert not [t for t in threading.enumerate() if t.name.startswith("relive")]
    with open_buffer(tmp_path) as buffer:
        assert buffer.ids() == ["a"]


def test_a_closed_buffer_says_so(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    buffer.add(experience("x"))
    buffer.close()
    buffer.close()
    calls: list[Any] = [
        lambda: buffer.add(experience("y")),
        lambda: buffer.add_many([]),
        lambda: buffer.search(visual=[1.0, 2.0, 3.0]),
        lambda: buffer.sample(1),
        lambda: buffer.get("x"),
        lambda: buffer.remove("x"),
        lambda: buffer.clear(),
        lambda: len(buffer),
        lambda: "x" in buffer,
        lambda: buffer.ids(),
        lambda: buffer.stats(),
        lambda: buffer.flush(),
        lambda: buffer.report_outcome(None, "x", success=True),
    ]
    for call in calls:
        with pytest.raises(BufferClosed):
            call()
    assert "closed" in repr(buffer)


def test_its_files_are_its_owners_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_buffer(tmp_path / "buffer") as buffer:
            buffer.add(experience("x"))
            buffer.flush()
            found = list((tmp_path / "buffer").rglob("*"))
            assert {f.stat().st_mode & 0o777 for f in found if f.is_file()} == {0o600}
            assert {f.stat().st_mode & 0o777 for f in found if f.is_dir()} == {0o700}
    finally:
        os.umask(before)


def test_recovery_reads_what_foreign_producers_wrote_and_sets_nonsense_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_buffer(tmp_path) as buffer:
        buffer.add(experience("x"))
    log = open_log(f"file:{tmp_path}")
    log.append([NewRecord(0, b"", b"nonsense"), NewRecord(0, b"", b"")])
    log.close()
    with open_buffer(tmp_path) as buffer:
        assert buffer.ids() == ["x"]
        assert buffer.stats().quarantined == 2
        buffer.add(experience("y"))
        assert len(buffer.search(visual=[1.0, 2.0, 3.0])) == 2
    assert "set aside" in caplog.text


class Unavailable(MemoryLog):
    """A memory log that does not answer on demand."""

    broken = False

    def append(self, records: Any) -> list[int]:
        if self.broken:
            raise LogUnavailable("no answer in time")
        return super().append(records)


def test_an_append_without_an_answer_can_be_tried_again(tmp_path: Path) -> None:
    log = Unavailable()
    engine = Engine(log, MemoryStore())
    engine.start()
    with ExperienceBuffer(tmp_path, log, engine, Snapshots(tmp_path)) as buffer:
        log.broken = True
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                buffer.add(experience("x"))
        log.broken = False
        # Nothing of it stuck, not even its dimension.
        buffer.add(Experience(id="x", visual=[1.0]))
        assert buffer.ids() == ["x"]


# Threads and processes


def test_threads_add_and_search_and_every_count_is_right(tmp_path: Path) -> None:
    adders, each, capacity = 4, 80, 150
    problems: list[object] = []
    done = threading.Event()
    with open_buffer(tmp_path, capacity=capacity) as buffer:
        searches = [0, 0]

        def add(thread: int) -> None:
            try:
                for n in range(each):
                    token = buffer.add(experience(f"{thread}-{n}", visual=[1.0, thread, n]))
                    if buffer.get(token.id) is None and len(buffer) < capacity:
                        problems.append(f"{token.id} is not there")
            except ReliveError as error:
                problems.append(error)

        def search(reader: int) -> None:
            try:
                while not done.is_set():
                    hits = buffer.search(visual=[1.0, 1.0, 1.0], k=50)
                    if len({hit.id for hit in hits}) != len(hits):
                        problems.append("the same one twice")
                    scores = [hit.score for hit in hits]
                    if scores != sorted(scores, reverse=True):
                        problems.append("not in order")
                    buffer.sample(5)
                    searches[reader] += 1
            except ReliveError as error:
                problems.append(error)

        threads = [threading.Thread(target=add, args=(at,)) for at in range(adders)]
        readers = [threading.Thread(target=search, args=(at,)) for at in range(2)]
        for thread in [*threads, *readers]:
            thread.start()
        for thread in threads:
            thread.join(100)
        done.set()
        for thread in readers:
            thread.join(20)
        buffer.flush()
        stats = buffer.stats()
        assert problems == []
        assert all(searches)
        assert (stats.additions, stats.size, stats.index_size) == (
            adders * each,
            capacity,
            capacity,
        )
        assert stats.evictions == adders * each - capacity
        assert (stats.quarantined, stats.conflicts, stats.retrievals_lost) == (0, 0, 0)
        assert stats.retrievals > 0
        digest = stats.digest
    log = open_log(f"file:{tmp_path}")
    replayed = Materializer(log, MemoryStore())
    replayed.catch_up()
    assert replayed.digest() == digest
    replayed.close()
    log.close()


def spawn(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


ADDING = """
import sys
from relive.buffer import BufferConfig, Experience, ExperienceBuffer
buffer = ExperienceBuffer.open(sys.argv[1], BufferConfig(faiss_backend="cpu"))
n = 0
while True:
    token = buffer.add(Experience(id=f"x{n}", visual=[1.0, 2.0, 3.0]))
    print(token.id, flush=True)
    n += 1
"""


def test_what_was_acknowledged_before_kill_9_is_there_after_reopening(tmp_path: Path) -> None:
    process = spawn(ADDING, tmp_path)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(300)]
    process.kill()
    acknowledged += [line.strip() for line in process.stdout]
    process.wait()
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.close()
    with open_buffer(tmp_path) as buffer:
        ids = buffer.ids()
        assert ids[: len(acknowledged)] == acknowledged
        assert len(ids) <= len(acknowledged) + 1
        stats = buffer.stats()
        assert stats.size == stats.index_size == stats.additions == len(ids)
        assert len(buffer.search(visual=[1.0, 2.0, 3.0], k=10_000)) == len(ids)


SECOND = """
import sys
from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.errors import DuplicateExperience
with ExperienceBuffer.open(sys.argv[1], BufferConfig(faiss_backend="cpu")) as buffer:
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        try:
            if word == "add":
                buffer.add(Experience(id=rest, visual=[1.0, 2.0, 3.0]))
            elif word == "remove":
                buffer.remove(rest)
        except DuplicateExperience:
            print("duplicate", flush=True)
        else:
            print(*buffer.ids(), flush=True)
"""


def stop_following(buffer: ExperienceBuffer) -> None:
    """From now on it folds only what a call needs."""
    buffer._engine._materializer._closing.set()
    thread = buffer._engine._materializer._thread
    assert thread is not None
    thread.join()


def test_of_two_processes_that_add_one_id_with_other_content_the_later_is_refused(
    tmp_path: Path,
) -> None:
    with open_buffer(tmp_path) as first, open_buffer(tmp_path) as second:
        second.add(experience("other"))
        stop_following(second)
        first.add(experience("x", question="a"))
        with pytest.raises(DuplicateExperience):
            second.add(experience("x", question="b"))
        assert [second.get("x"), first.get("x")][0].question == "a"  # type: ignore[union-attr]


def test_of_two_processes_that_add_one_id_with_the_same_content_neither_is_refused(
    tmp_path: Path,
) -> None:
    with open_buffer(tmp_path) as first, open_buffer(tmp_path) as second:
        stop_following(second)
        first.add(experience("x"))
        second.add(experience("x"))
        assert second.ids() == first.ids() == ["x"]


def test_an_add_that_nobody_else_came_before_folds_nothing(
    buffer: ExperienceBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer.add(experience("first"))
    len(buffer)
    stop_following(buffer)
    caught_up: list[Any] = []
    monkeypatch.setattr(buffer._engine, "catch_up", lambda *target: caught_up.append(target))
    for at in range(3):
        buffer.add(experience(f"x{at}"))
    assert caught_up == []


def test_a_second_process_sees_adds_and_removes(tmp_path: Path) -> None:
    with open_buffer(tmp_path) as buffer:
        buffer.add(experience("mine"))
        process = spawn(SECOND, tmp_path)
        assert process.stdin is not None
        assert process.stdout is not None

        def tell(line: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert tell("look") == "mine"
        assert tell("add theirs") == "mine theirs"
        assert buffer.ids() == ["mine", "theirs"]
        buffer.add(experience("more"))
        assert tell("look") == "mine theirs more"
        assert [hit.id for hit in buffer.search(visual=[1.0, 2.0, 3.0])] == buffer.ids()

        # What the other one removed is an addition again, although its content is known here.
        for _ in range(20):
            assert tell("remove more") == "mine theirs"
            buffer.add(experience("more"))
            assert tell("look") == "mine theirs more"

        # Content that was acknowledged there is known here.
        with pytest.raises(DuplicateExperience):
            buffer.add(experience("theirs", question="other"))
        buffer.add(experience("late", question="other"))
        assert tell("look") == "mine theirs more late"
        assert tell("add late") == "duplicate"
        process.stdin.close()
        assert process.wait(30) == 0
        process.stdout.close()
        assert buffer.stats().conflicts == 0

    # Whichever closes last, the state is whole.
    with open_buffer(tmp_path) as buffer:
        assert buffer.ids() == ["mine", "theirs", "more", "late"]


def test_the_index_is_rebuilt_under_adds_evictions_and_searches(tmp_path: Path) -> None:
    with open_buffer(tmp_path, capacity=300) as buffer:
        buffer.add_many(experience(visual=[math.cos(n), math.sin(n), 0.0]) for n in range(300))
        ended = threading.Event()

        def write() -> None:
            n = 300
            while not ended.is_set():
                buffer.add(experience(visual=[math.cos(n), math.sin(n), 0.0]))
                n += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for epoch in range(1, 6):
                buffer.rebuild_index()
                assert buffer.stats().epoch == epoch
                found = buffer.search(visual=[1.0, 0.0, 0.0], k=1_000)
                assert len({hit.id for hit in found}) == 300
        finally:
            ended.set()
            writer.join()
        buffer.rebuild_index(wait=False)
        buffer.rebuild_index()  # the same one, if it has not begun
        stats = buffer.stats()
        assert stats.epoch in (6, 7)
        assert (stats.index_size, stats.size) == (300, 300)
        assert {h.id for h in buffer.search(visual=[1.0, 0.0, 0.0], k=300)} == set(buffer.ids())
    with pytest.raises(BufferClosed):
        buffer.rebuild_index()


@pytest.mark.parametrize("backend", ["lmdb", "file"])
def test_statistics_say_what_state_and_snapshots_take_on_disk(tmp_path: Path, backend: str) -> None:
    with open_buffer(tmp_path, persistence_backend=backend, snapshot_interval=10**9) as buffer:
        buffer.add_many(experience(visual=[float(n)] * 1_000) for n in range(1, 301))
        buffer.flush()
        before = buffer.stats()
        assert 300 * 4_000 < before.payload_bytes < 300 * 4_500
        assert before.payload_bytes < before.state_bytes < 1.3 * before.payload_bytes
        assert before.snapshot_bytes == 0
        buffer.snapshot()
        after = buffer.stats()
        assert 0 < after.snapshot_bytes < 0.4 * after.payload_bytes, "payloads are linked"


OWNER = """
import sys
from relive.buffer import BufferConfig, Experience, ExperienceBuffer
with ExperienceBuffer.open(sys.argv[1], BufferConfig(faiss_backend="cpu")) as buffer:
    buffer.add(Experience(id="theirs", visual=[1.0, 2.0, 3.0]))
    buffer.snapshot()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_the_store_of_a_killed_process_is_handed_over(tmp_path: Path) -> None:
    owner = spawn(OWNER, tmp_path)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    with open_buffer(tmp_path) as buffer:
        with pytest.raises(StoreInUse):
            buffer.snapshot()
        buffer.add(experience("mine"))
        owner.kill()
        owner.communicate()
        deadline = time.monotonic() + 30.0
        while True:
            buffer.add(experience())  # nothing waits for the hand-over
            try:
                snapshot = buffer.snapshot()
                break
            except StoreInUse:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert snapshot.digest == buffer.stats().digest
        size = len(buffer)
        assert {"mine", "theirs"} <= set(buffer.ids())
    with open_buffer(tmp_path) as again:
        recovery = again.stats().recovery
        assert recovery is not None
        assert (recovery.source, recovery.events_replayed) == ("store", 0)
        assert len(again) == size
