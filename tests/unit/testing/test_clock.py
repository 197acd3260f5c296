import pytest

from relive.log.memory import MemoryLog
from relive.log.port import NewRecord
from relive.testing.clock import TurningClock


def test_a_clock_stands_still_until_it_is_turned() -> None:
    clock = TurningClock(5_000_000)
    assert (clock(), clock()) == (5_000_000, 5_000_000)
    assert clock.advance(1.5) == clock() == 6_500_000


def test_a_clock_is_not_turned_back() -> None:
    clock = TurningClock(5_000_000)
    for seconds in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="turned forward"):
            clock.advance(seconds)
    assert clock() == 5_000_000


def test_the_fixture_of_a_log_in_memory_takes_its_time_from_the_clock(
    memory_log: MemoryLog, turning_clock: TurningClock
) -> None:
    began = turning_clock()
    memory_log.append([NewRecord(0, b"k", b"first")])
    turning_clock.advance(60)
    memory_log.append([NewRecord(0, b"k", b"second")])
    assert [r.time_us for r in memory_log.read({0: 0})] == [began, began + 60_000_000]
    assert memory_log.position_at(0, began + 1) == 1
