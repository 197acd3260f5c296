"""How far reads are behind the log."""

from __future__ import annotations

from relive.index_service.page.observed import Behind


def test_it_is_not_behind_while_it_reaches_every_end() -> None:
    behind = Behind()
    assert behind.seconds(0.0, {0: 5}, {0: 5}) == 0.0
    assert behind.seconds(9.0, {0: 6}, {0: 6}) == 0.0
    assert behind.seconds(9.0, {}, {}) == 0.0


def test_it_is_as_far_behind_as_the_oldest_end_that_it_has_not_reached() -> None:
    behind = Behind()
    behind.seconds(0.0, {0: 5, 1: 0}, {0: 5, 1: 0})
    assert behind.seconds(10.0, {0: 7, 1: 0}, {0: 5, 1: 0}) == 0.0  # first seen now
    assert behind.seconds(12.0, {0: 9, 1: 0}, {0: 6, 1: 0}) == 2.0
    assert behind.seconds(14.0, {0: 9, 1: 3}, {0: 7, 1: 0}) == 2.0  # since 12, the end of then
    assert behind.seconds(15.0, {0: 9, 1: 3}, {0: 9, 1: 2}) == 1.0
    assert behind.seconds(16.0, {0: 9, 1: 3}, {0: 9, 1: 3}) == 0.0


def test_a_long_way_behind_it_keeps_the_oldest_end() -> None:
    behind = Behind()
    for second in range(2_000):
        found = behind.seconds(float(second), {0: second + 1}, {0: 0})
        assert found == float(second)
