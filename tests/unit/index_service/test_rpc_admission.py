"""Turns, and who gets none: with a clock that stands still unless it is turned."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.errors import Overloaded
from relive.index_service import rpc_admission
from relive.index_service.rpc_admission import Admission, CallEnded

PATIENCE_S = 30.0


def never_ends(callback: Callable[[], object]) -> bool:
    return True


class Call(threading.Thread):
    """A call in a thread of its own, which keeps its turn until it is told."""

    def __init__(self, admission: Admission, wait_s: float = PATIENCE_S) -> None:
        super().__init__()
        self._admission = admission
        self._wait_s = wait_s
        self._leave = threading.Event()
        self._began = threading.Event()
        self._end: Callable[[], object] | None = None
        self.problem: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            with self._admission.turn(self._wait_s, self._remember):
                self._began.set()
                assert self._leave.wait(PATIENCE_S)
        except (Overloaded, CallEnded) as problem:
            self.problem = problem

    def _remember(self, callback: Callable[[], object]) -> bool:
        self._end = callback
        return True

    @property
    def has_turn(self) -> bool:
        return self._began.is_set()

    def end(self) -> None:
        """Its caller goes away."""
        assert self._end is not None
        self._end()

    def leave(self) -> None:
        self._leave.set()

    def done(self) -> Call:
        self.leave()
        self.join(PATIENCE_S)
        return self


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def queued(admission: Admission, *calls: Call, after: int = 0) -> tuple[Call, ...]:
    """Once so many calls wait."""
    wait_until(lambda: f"queued={after + len(calls)})" in repr(admission))
    return calls


@pytest.fixture
def call() -> Iterator[Callable[..., Call]]:
    calls: list[Call] = []

    def make(*arguments: Any) -> Call:
        calls.append(Call(*arguments))
        return calls[-1]

    yield make
    for made in calls:
        made.leave()
    for made in calls:
        made.join(PATIENCE_S)


def test_as_many_as_there_are_turns_run_at_once(call: Callable[..., Call]) -> None:
    admission = Admission(2, 10)
    first, second = call(admission), call(admission)
    wait_until(lambda: first.has_turn and second.has_turn)

    (third,) = queued(admission, call(admission))
    assert not third.has_turn

    first.done()
    wait_until(lambda: third.has_turn)


def test_turns_are_given_in_the_order_of_arrival(call: Callable[..., Call]) -> None:
    admission = Admission(1, 10)
    running = call(admission)
    wait_until(lambda: running.has_turn)
    waiting: list[Call] = []
    for at in range(5):
        waiting += queued(admission, call(admission), after=at)

    for at, waiter in enumerate(waiting):
        running.done()
        running = waiter
        wait_until(lambda waiter=waiter: waiter.has_turn)  # type: ignore[misc]
        assert not any(later.has_turn for later in waiting[at + 1 :])


def test_beyond_the_queue_a_call_is_refused_and_the_others_are_not(
    call: Callable[..., Call],
) -> None:
    admission = Admission(1, 2)
    running = call(admission)
    wait_until(lambda: running.has_turn)
    waiting = queued(admission, call(admission), call(admission))

    with (
        pytest.raises(Overloaded, match=r"2 calls wait .*retry later, or ask another replica"),
        admission.turn(PATIENCE_S, never_ends),
    ):
        pass

    running.done()
    for waiter in waiting:
        assert waiter.done().problem is None
    assert repr(admission) == "Admission(running=0, queued=0)"


def test_without_a_queue_only_those_run_that_can_at_once(call: Callable[..., Call]) -> None:
    admission = Admission(1, 0)
    running = call(admission)
    wait_until(lambda: running.has_turn)

    with pytest.raises(Overloaded), admission.turn(PATIENCE_S, never_ends):
        pass

    running.done()
    with admission.turn(0.0, never_ends):
        pass


def test_a_call_that_would_not_get_its_turn_in_time_is_refused_at_once(
    call: Callable[..., Call],
) -> None:
    now = [100.0]
    admission = Admission(1, 10, clock=lambda: now[0])
    running = call(admission)
    wait_until(lambda: running.has_turn)
    waiting = list(queued(admission, *(call(admission) for _ in range(6))))

    # Nothing is known yet, so it is let in, and finds out.
    with pytest.raises(Overloaded, match="no turn in"), admission.turn(0.01, never_ends):
        pass

    # One every two seconds.
    for _ in range(3):
        now[0] += 2.0
        running.done()
        wait_until(lambda: any(waiter.has_turn for waiter in waiting))
        running = next(waiter for waiter in waiting if waiter.has_turn)
        waiting.remove(running)
    now[0] += 2.0

    with (
        pytest.raises(Overloaded, match=r"3 calls wait already; after them, in about \d+\.\d s"),
        admission.turn(7.0, never_ends),
    ):
        pass
    (patient,) = queued(admission, call(admission, 1_000.0), after=3)
    assert patient.problem is None

    running.done()
    for waiter in (*waiting, patient):
        waiter.done()


def test_after_a_crowd_nothing_is_remembered_of_it(call: Callable[..., Call]) -> None:
    now = [100.0]
    admission = Admission(1, 10, clock=lambda: now[0])
    running = call(admission)
    wait_until(lambda: running.has_turn)
    crowd = queued(admission, call(admission), call(admission))
    for waiter in (running, *crowd):
        now[0] += 1_000.0
        waiter.done()

    running = call(admission)
    wait_until(lambda: running.has_turn)
    (waiter,) = queued(admission, call(admission))
    running.done()

    assert waiter.done().problem is None


def test_a_call_that_ends_gives_its_place_to_those_behind_it(call: Callable[..., Call]) -> None:
    admission = Admission(1, 2)
    running = call(admission)
    wait_until(lambda: running.has_turn)
    (ended,) = queued(admission, call(admission))
    (behind,) = queued(admission, call(admission), after=1)

    wait_until(lambda: ended._end is not None)
    ended.end()

    assert isinstance(ended.done().problem, CallEnded)
    (third,) = queued(admission, call(admission), after=1)
    running.done()
    wait_until(lambda: behind.has_turn)
    assert not third.has_turn


def test_a_call_that_has_ended_before_it_waits_does_not_wait(call: Callable[..., Call]) -> None:
    admission = Admission(1, 2)
    running = call(admission)
    wait_until(lambda: running.has_turn)

    with pytest.raises(CallEnded), admission.turn(PATIENCE_S, lambda callback: False):
        pass

    assert repr(admission) == "Admission(running=1, queued=0)"


def test_a_paused_turn_is_anothers_and_the_next_that_ends_is_its_own(
    call: Callable[..., Call],
) -> None:
    admission = Admission(1, 10)
    paused, going_on = threading.Event(), threading.Event()
    order: list[str] = []

    def pausing() -> None:
        with admission.turn(PATIENCE_S, never_ends):
            with admission.pause():
                paused.set()
                assert going_on.wait(PATIENCE_S)
            order.append("paused")

    thread = threading.Thread(target=pausing)
    thread.start()
    assert paused.wait(PATIENCE_S)
    first = call(admission)
    wait_until(lambda: first.has_turn)
    (second,) = queued(admission, call(admission))

    going_on.set()
    wait_until(lambda: len(admission._resuming) == 1)
    assert order == []
    first.done()

    thread.join(PATIENCE_S)
    assert order == ["paused"]
    wait_until(lambda: second.has_turn)
    second.done()
    assert repr(admission) == "Admission(running=0, queued=0)"


def test_a_paused_call_goes_on_beside_others_that_do_not_end(
    call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_admission, "_RESUME_S", 0.01)
    admission = Admission(1, 10)

    with admission.turn(PATIENCE_S, never_ends):
        with admission.pause():
            stuck = call(admission)
            wait_until(lambda: stuck.has_turn)
        assert repr(admission) == "Admission(running=2, queued=0)"
        (waiting,) = queued(admission, call(admission))

    assert not waiting.has_turn
    assert repr(admission) == "Admission(running=1, queued=1)"
    stuck.done()
    wait_until(lambda: waiting.has_turn)


def test_a_turn_ends_with_an_exception_too() -> None:
    admission = Admission(1, 0)

    for _ in range(3):
        with pytest.raises(KeyError), admission.turn(0.0, never_ends):
            raise KeyError

    assert repr(admission) == "Admission(running=0, queued=0)"


@given(
    turns=st.integers(1, 3),
    places=st.integers(0, 4),
    calls=st.lists(st.sampled_from([0.0, 0.002, PATIENCE_S]), max_size=20),
)
def test_every_call_runs_or_is_refused_and_afterwards_all_is_as_before(
    turns: int, places: int, calls: list[float]
) -> None:
    admission = Admission(turns, places)
    lock = threading.Lock()
    running, most, ends = 0, 0, []

    def run(wait_s: float) -> None:
        nonlocal running, most
        try:
            with admission.turn(wait_s, never_ends):
                with lock:
                    running += 1
                    most = max(most, running)
                time.sleep(0.0005)
                with lock:
                    running -= 1
                with admission.pause():
                    time.sleep(0.0005)
                with lock:
                    running += 1
                    most = max(most, running)
                with lock:
                    running -= 1
            ends.append("ran")
        except Overloaded:
            ends.append("refused")

    threads = [threading.Thread(target=run, args=[wait_s]) for wait_s in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert len(ends) == len(calls)
    assert most <= turns
    assert ends.count("ran") >= min(len(calls), turns)
    assert repr(admission) == "Admission(running=0, queued=0)"
