from dataclasses import replace
from pathlib import Path

import pytest

from relive.buffer import Experience, ExperienceBuffer
from relive.consumers import MemoryStore
from relive.errors import LogMissing
from relive.index_service import Engine
from relive.log.memory import MemoryLog
from relive.producers import Publisher
from relive.testing.clock import TurningClock
from relive.testing.replay import assert_replay_equals, replayed


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "buffer"


def test_a_buffer_equals_the_replay_of_its_log(directory: Path) -> None:
    with ExperienceBuffer.open(directory) as buffer:
        buffer.add(Experience(id="x", visual=[1.0, 2.0]))
        result = buffer.search(visual=[1.0, 0.0])
        buffer.report_outcome(result.retrieval_id, "x", success=True)
        buffer.flush()
        stats = buffer.stats()
        assert assert_replay_equals(f"file:{directory}", stats).size == 1
    assert_replay_equals(f"file:{directory}", stats.digest)


def test_another_state_is_told_with_both_digests(directory: Path) -> None:
    with ExperienceBuffer.open(directory) as buffer:
        buffer.add(Experience(id="x", visual=[1.0, 2.0]))
        stats = buffer.stats()
    with pytest.raises(AssertionError, match=r"digest 00ff, a replay .* has " + stats.digest):
        assert_replay_equals(f"file:{directory}", "00ff")
    with pytest.raises(AssertionError, match="digest 00ff"):
        assert_replay_equals(f"file:{directory}", replace(stats, digest="00ff"))


def test_a_state_behind_the_log_is_told_so(directory: Path) -> None:
    with ExperienceBuffer.open(directory) as buffer:
        before = buffer.stats()
        buffer.add(Experience(id="x", visual=[1.0, 2.0]))
        with pytest.raises(AssertionError, match="flush the buffer"):
            assert_replay_equals(f"file:{directory}", before)


def test_replaying_makes_no_log(directory: Path) -> None:
    with pytest.raises(LogMissing):
        replayed(f"file:{directory}")
    assert not directory.exists()


def test_an_open_log_stays_open(memory_log: MemoryLog) -> None:
    with Publisher(memory_log) as publisher:
        publisher.publish(Experience(id="x", visual=[1.0])).result(30)
    assert replayed(memory_log) == replayed(memory_log)
    assert replayed(memory_log).positions == {0: memory_log.bounds(0).end}


def test_priorities_of_an_engine_age_by_the_clock_that_a_test_turns(
    memory_log: MemoryLog, turning_clock: TurningClock
) -> None:
    engine = Engine(memory_log, MemoryStore(), clock_us=turning_clock)
    try:
        with Publisher(memory_log) as publisher:
            born = turning_clock()
            queued = publisher.publish(Experience(id="x", visual=[1.0], timestamp=born))
            engine.catch_up(queued.result(30))
        fresh = engine.get("x")
        turning_clock.advance(7 * 24 * 3600)
        week_old = engine.get("x")
        assert fresh is not None
        assert week_old is not None
        assert fresh.priority is not None
        # p_age falls by 0.5 in a half-life, and weighs 0.2.
        assert week_old.priority == pytest.approx(fresh.priority - 0.1)
        assert_replay_equals(memory_log, engine.stats())
    finally:
        engine.close()
