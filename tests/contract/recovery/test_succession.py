"""A process that did not own the store goes on in it once its owner has ended."""

from __future__ import annotations

import time
from typing import Any

import pytest

from relive.consumers import Heir, Recovered
from relive.consumers.succession import take_over
from relive.errors import StateDamaged, StoreInUse


def heir(case: Any) -> Any:
    opened = case.open(read_only=True)
    assert not opened.found.owned
    return opened


def inherited(opened: Any) -> Recovered:
    assert opened.found.inherit is not None
    found: Recovered = opened.found.inherit()
    return found


def is_kept(case: Any, opened: Any) -> bool:
    """Whether what the materializer commits is what the next opening finds."""
    opened.materializer.catch_up()
    opened.materializer.commit()
    digest = opened.digest
    opened.close()
    again = case.open()
    assert again.recovery.events_replayed == 0
    return bool(again.digest == digest == case.digest())


def test_while_the_owner_lives_nobody_inherits(case: Any) -> None:
    case.add(5)
    case.open()
    with pytest.raises(StoreInUse):
        inherited(heir(case))


def test_an_heir_brings_the_store_to_where_it_is_itself(case: Any) -> None:
    case.add(20)
    owner = case.open()
    owner.materializer.commit()
    case.add(20)
    successor = heir(case)
    case.add(5)
    owner.die()
    take_over(successor.materializer, case.log, inherited(successor))
    case.add(5)
    assert is_kept(case, successor)


def test_an_heir_that_is_behind_the_store_catches_up_first(case: Any) -> None:
    case.add(5)
    owner = case.open()
    successor = heir(case)
    case.add(40)
    owner.materializer.catch_up()
    owner.close()
    take_over(successor.materializer, case.log, inherited(successor))
    assert is_kept(case, successor)


def test_a_store_with_another_state_than_the_log_gives_is_not_taken_over(case: Any) -> None:
    case.add(5)
    owner = case.open()
    owner.materializer.commit()
    successor = heir(case)
    digest = successor.digest
    owner.close()
    found = inherited(successor)
    state = successor.materializer.states[0]
    state.counters.evictions += 1  # as if this process, or the store, had it wrong
    with pytest.raises(StateDamaged):
        take_over(successor.materializer, case.log, found)
    state.counters.evictions -= 1
    assert found.condemned()
    assert successor.digest == digest
    successor.materializer.catch_up()


def test_an_heir_notices_that_the_owner_has_ended(case: Any) -> None:
    case.add(5)
    owner = case.open()
    successor = heir(case)
    owned: list[Recovered] = []
    assert successor.found.inherit is not None
    waiting = Heir(successor.materializer, case.log, successor.found.inherit, owned.append)
    waiting.start()
    time.sleep(1.2)
    assert owned == []
    owner.die()
    deadline = time.monotonic() + 30.0
    while not owned and time.monotonic() < deadline:
        time.sleep(0.02)
    waiting.close()
    assert [found.owned for found in owned] == [True]
    assert is_kept(case, successor)


def test_an_heir_that_is_closed_waits_no_longer(case: Any) -> None:
    case.add(1)
    case.open()
    successor = heir(case)
    assert successor.found.inherit is not None
    waiting = Heir(successor.materializer, case.log, successor.found.inherit, lambda found: None)
    waiting.start()
    waiting.close()
    assert not waiting._thread.is_alive()
