"""An event on its way is a Future like any other, whenever somebody looks at it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ALL_COMPLETED, Future, as_completed, wait
from typing import TypeAlias

import pytest

from relive.core.results import Token
from relive.errors import LogUnavailable
from relive.log import NewRecord
from relive.producers.outgoing import Outgoing, acknowledge, give_up

# Something to do when the event is on its way: at once, or after somebody has looked.
Look: TypeAlias = Callable[[Outgoing], object]

LOOKS: dict[str, Look] = {"nobody": id, "done": Outgoing.done, "repr": repr}


def outgoing(name: str = "x") -> Outgoing:
    return Outgoing(NewRecord(2, name.encode(), b"value"), name, 0.0, None)


@pytest.fixture(params=LOOKS.values(), ids=list(LOOKS))
def look(request: pytest.FixtureRequest) -> Look:
    found: Look = request.param
    return found


def test_it_is_pending_until_it_is_acknowledged_and_then_has_its_token(look: Look) -> None:
    event = outgoing()
    look(event)
    acknowledge([event], [7])
    assert event.done()
    assert event.result(0) == Token("x", 2, 7)
    assert event.exception(0) is None
    assert not event.running()
    assert not event.cancelled()


def test_what_was_given_up_raises_why(look: Look) -> None:
    event, error = outgoing(), LogUnavailable("gone")
    look(event)
    give_up([event], error)
    assert event.exception(0) is error
    with pytest.raises(LogUnavailable):
        event.result(0)


def test_it_waits_only_so_long_and_cannot_be_cancelled() -> None:
    event = outgoing()
    with pytest.raises(TimeoutError):
        event.result(0.01)
    assert not event.cancel()
    acknowledge([event], [0])
    assert not event.cancel()
    assert event.result(0) == Token("x", 2, 0)


def test_callbacks_are_called_once_added_before_or_after(look: Look) -> None:
    event, called = outgoing(), list[Future[Token]]()
    look(event)
    event.add_done_callback(called.append)
    acknowledge([event], [7])
    event.add_done_callback(called.append)
    assert called == [event, event]


def test_the_library_waits_for_it() -> None:
    events = [outgoing(str(at)) for at in range(4)]
    acknowledge(events[:1], [0])
    threading.Timer(0.02, acknowledge, (events[1:], [1, 2, 3])).start()
    assert wait(events, 10.0, ALL_COMPLETED).done == set(events)
    assert sorted(e.result(0).position for e in as_completed(events, 10.0)) == [0, 1, 2, 3]


def test_a_coroutine_waits_for_it() -> None:
    async def both() -> list[Token]:
        early, late = outgoing("early"), outgoing("late")
        acknowledge([early], [0])
        threading.Timer(0.02, acknowledge, ([late], [1])).start()
        return [await asyncio.wrap_future(event) for event in (early, late)]

    assert asyncio.run(both()) == [Token("early", 2, 0), Token("late", 2, 1)]


def test_many_threads_may_look_while_it_is_acknowledged() -> None:
    events = [outgoing(str(at)) for at in range(2_000)]
    found: list[list[Token]] = [[] for _ in range(4)]

    def collect(into: list[Token]) -> None:
        into.extend(event.result(10.0) for event in events)

    threads = [threading.Thread(target=collect, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for start in range(0, len(events), 7):
        group = events[start : start + 7]
        acknowledge(group, range(start, start + len(group)))
    for thread in threads:
        thread.join(30.0)
    assert found == [[Token(str(at), 2, at) for at in range(len(events))]] * 4


def test_a_name_that_no_future_has_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="colour"):
        outgoing().colour  # noqa: B018
