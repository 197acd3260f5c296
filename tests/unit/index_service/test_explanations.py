"""Explanations that take longer than a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from relive.core.explanation import Explanation
from relive.errors import BufferClosed, Overloaded, UnknownRetrieval
from relive.index_service.explanations import MOST, Explanations

PATIENCE_S = 30.0


class Slow:
    """Makes explanations once it is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.made: list[str] = []

    def __call__(self, retrieval_id: str) -> Explanation:
        assert self.go_on.wait(PATIENCE_S)
        self.made.append(retrieval_id)
        if retrieval_id == "unknown":
            raise UnknownRetrieval(retrieval_id)
        return Explanation(retrieval_id, "search", None, 0.0, {}, ())


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.go_on.set()


def test_asking_again_waits_for_the_same_one(slow: Slow) -> None:
    explanations = Explanations(slow)
    assert explanations.of("r", 0.0) is None
    assert explanations.of("r", 0.01) is None
    slow.go_on.set()
    found = explanations.of("r", PATIENCE_S)
    assert found is not None
    assert found.retrieval_id == "r"
    assert slow.made == ["r"]
    explanations.of("r", PATIENCE_S)  # what was fetched is made anew
    assert slow.made == ["r", "r"]
    explanations.close()


def test_a_failure_is_told_and_not_kept(slow: Slow) -> None:
    explanations = Explanations(slow)
    slow.go_on.set()
    for _ in range(2):
        with pytest.raises(UnknownRetrieval):
            explanations.of("unknown", PATIENCE_S)
    assert slow.made == ["unknown"] * 2
    explanations.close()


def test_there_are_only_so_many_at_a_time(slow: Slow) -> None:
    explanations = Explanations(slow)
    for n in range(MOST):
        assert explanations.of(f"r{n}", 0.0) is None
    with pytest.raises(Overloaded):
        explanations.of("one more", 0.0)
    slow.go_on.set()
    assert explanations.of(f"r{MOST - 1}", PATIENCE_S) is not None
    # Nobody came back for the others, which are done: they make room.
    for n in range(MOST + 1):
        assert explanations.of(f"s{n}", PATIENCE_S) is not None
    explanations.close()


def test_after_closing_nothing_is_begun(slow: Slow) -> None:
    explanations = Explanations(slow)
    explanations.close()
    with pytest.raises(BufferClosed):
        explanations.of("r", 0.0)
