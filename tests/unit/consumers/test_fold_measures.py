from __future__ import annotations

from relive.consumers.fold_measures import FoldMeasures
from relive.log import Record

NIGHT_S = 40_000.0


class Clocks:
    """This machine's, and the log's: they agree."""

    def __init__(self) -> None:
        self.s = 1_000_000.0

    def monotonic(self) -> float:
        return self.s

    def now_us(self) -> int:
        return int(self.s * 1e6)

    def record(self, position: int, age_s: float) -> Record:
        return Record(0, position, int((self.s - age_s) * 1e6), b"", b"")


def measures_of(clocks: Clocks) -> FoldMeasures:
    return FoldMeasures(clocks.monotonic, clocks.now_us)


def test_nothing_is_behind_where_everything_is_folded() -> None:
    clocks = Clocks()
    measures = measures_of(clocks)
    clocks.s += NIGHT_S
    assert measures.lag_s({0: 0}) == {0: 0.0}


def test_the_first_event_after_a_quiet_night_is_not_a_night_late() -> None:
    clocks = Clocks()
    measures = measures_of(clocks)
    measures.folded([clocks.record(0, 0.0)], 1, 0.0, live=True)
    clocks.s += NIGHT_S
    measures.caught_up()
    clocks.s += 0.2
    assert abs(measures.lag_s({0: 1})[0] - 0.2) < 1e-6


def test_a_fold_that_does_not_keep_up_is_behind_by_the_age_of_what_it_folds() -> None:
    clocks = Clocks()
    measures = measures_of(clocks)
    clocks.s += 3_600.0
    measures.folded([clocks.record(at, 600.0 - at) for at in range(10)], 10, 0.0, live=True)
    assert abs(measures.lag_s({0: 5})[0] - 591.0) < 1e-6
    assert measures.events == 10


def test_freshness_is_not_of_what_was_there_before_this_process() -> None:
    clocks = Clocks()
    measures = measures_of(clocks)
    measures.folded([clocks.record(0, NIGHT_S)], 1, 0.0, live=False)
    assert measures.freshness_s.observed().count == 0
    # A log whose clock is ahead gives no negative ages; one without times, none at all.
    measures.folded([clocks.record(1, -5.0), Record(0, 2, 0, b"", b"")], 2, 0.0, live=True)
    seen = measures.freshness_s.observed()
    assert (seen.count, seen.total) == (1, 0.0)


def test_a_view_is_as_old_as_the_last_look_at_the_log() -> None:
    clocks = Clocks()
    measures = measures_of(clocks)
    clocks.s += 7.0
    assert measures.age_s() == 7.0
    measures.folded([], 0, 0.0, live=True)
    assert measures.age_s() == 0.0
