"""A buffer as it was answers as it did then, and cannot be written to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer, Filter
from relive.errors import BufferClosed, InvalidQuery, LogGap, ReadOnlyLog
from relive.log import open_log

NOW_S = 1_800_000_000.0


def experience(n: int) -> Experience:
    return Experience(id=f"x{n}", visual=[1.0, float(n)], total_reward=float(n), timestamp=n)


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[ExperienceBuffer]:
    with ExperienceBuffer.open(tmp_path / "buffer", BufferConfig(capacity=5)) as buffer:
        yield buffer


def test_at_every_position_it_answers_as_it_did_then(buffer: ExperienceBuffer) -> None:
    seen = []
    for n in range(12):
        buffer.add(experience(n))
        if n % 4 == 3:
            buffer.report_outcome(None, f"x{n}", success=True)
        batch = buffer.sample(3, seed=n, now=NOW_S)
        found = buffer.search(visual=[1.0, 3.0], k=3)
        buffer.flush()
        stats = buffer.stats()
        # The retrievals are events of their own, after the positions that the answers are of.
        seen.append((batch, found, buffer.ids(), stats))
    for batch, found, ids, stats in seen:
        with buffer.at(stats.positions) as then:
            assert then.ids() == ids
            assert then.stats().digest == stats.digest
            assert len(then) == stats.size
        with buffer.at(batch.positions[0]) as then:
            again = then.sample(3, seed=batch.seed, now=NOW_S)
            assert [(i.id, i.probability) for i in again] == [(i.id, i.probability) for i in batch]
        with buffer.at(found.positions) as then:
            hits = then.search(visual=[1.0, 3.0], k=3)
            assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in found]


def test_a_filter_of_then_looks_at_what_was_known_then(buffer: ExperienceBuffer) -> None:
    for n in range(3):
        buffer.add(Experience(id=f"x{n}", visual=[1.0, float(n)], metadata={"odd": n % 2 == 1}))
    before = buffer.stats().positions
    buffer.report_outcome(None, "x1", success=True)
    for n in range(3, 8):  # x1 is evicted
        buffer.add(Experience(id=f"x{n}", visual=[1.0, float(n)], metadata={"odd": n % 2 == 1}))
    odd, good = Filter(where={"odd": True}), Filter(min_success_rate=1.0)
    assert {hit.id for hit in buffer.search(visual=[1.0, 0.0], filter=odd)} == {"x3", "x5", "x7"}
    with buffer.at(before) as then:
        assert {hit.id for hit in then.search(visual=[1.0, 0.0], filter=odd)} == {"x1"}
        assert list(then.search(visual=[1.0, 0.0], filter=good)) == []
    with buffer.at(before[0] + 1) as then:
        (results,) = then.search_many(visual=[[1.0, 0.0]], filter=good)
        assert [hit.id for hit in results] == ["x1"]


def test_what_was_evicted_since_is_there_again(buffer: ExperienceBuffer) -> None:
    token = buffer.add(experience(0))
    buffer.add_many([experience(n) for n in range(1, 9)])
    assert buffer.get("x0") is None
    with buffer.at(token.position + 1) as then:
        assert "x0" in then
        assert then.ids() == ["x0"]
    assert "x0" not in buffer


def test_a_time_includes_what_was_appended_before_it(buffer: ExperienceBuffer) -> None:
    buffer.add(experience(0))
    log = open_log(f"file:{buffer._path}")
    (last,) = log.read({0: log.bounds(0).end - 1})
    log.close()
    buffer.add(experience(1))
    with buffer.at(datetime.fromtimestamp((last.time_us + 1) / 1e6, UTC)) as then:
        assert then.ids()[:1] == ["x0"]
    with buffer.at(datetime(2020, 1, 1)) as then:
        assert len(then) == 0


def test_looking_at_the_past_writes_nothing(buffer: ExperienceBuffer) -> None:
    buffer.add_many([experience(n) for n in range(5)])
    buffer.flush()
    before = buffer.stats()
    with buffer.at(before.positions) as then:
        then.search(visual=[1.0, 0.0], k=5)
        then.sample(5)
        then.flush()
        for write in (
            lambda: then.add(experience(9)),
            lambda: then.remove("x1"),
            lambda: then.clear(),
            lambda: then.report_outcome(None, "x1", success=True),
        ):
            with pytest.raises(ReadOnlyLog, match="the past cannot be changed"):
                write()
    buffer.flush()
    assert buffer.stats() == before


def test_the_past_stays_while_the_buffer_goes_on_and_closes(tmp_path: Path) -> None:
    with ExperienceBuffer.open(tmp_path, BufferConfig(capacity=5)) as buffer:
        buffer.add(experience(0))
        then = buffer.at(buffer.stats().positions)
        buffer.clear()
    assert then.ids() == ["x0"]
    then.close()
    with pytest.raises(BufferClosed):
        then.ids()


def test_a_moment_that_is_not_there_is_refused(buffer: ExperienceBuffer) -> None:
    buffer.add(experience(0))
    end = buffer.stats().positions[0]
    with pytest.raises(LogGap, match=f"the log ends at {end}"):
        buffer.at(end + 1)
    with pytest.raises(InvalidQuery):
        buffer.at({1: 0})


def test_the_index_of_a_past_moment_can_be_rebuilt(buffer: ExperienceBuffer) -> None:
    for n in range(4):
        buffer.add(experience(n))
    with buffer.at(3) as past:
        before = [hit.id for hit in past.search(visual=[1.0, 1.0], k=10)]
        past.rebuild_index()
        assert [hit.id for hit in past.search(visual=[1.0, 1.0], k=10)] == before
        assert past.stats().epoch == 1
