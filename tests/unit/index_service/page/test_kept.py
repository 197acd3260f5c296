"""Answers that are kept for a while."""

from __future__ import annotations

import pytest

from relive.index_service.page.kept import Kept


def test_an_answer_is_made_again_only_after_a_while() -> None:
    now, made = 0.0, iter(range(10))
    kept = Kept(lambda: next(made), for_s=5.0, clock=lambda: now)
    assert [kept.value(), kept.value()] == [0, 0]
    now = 4.9
    assert kept.value() == 0
    now = 5.0
    assert kept.value() == 1


def test_a_failure_is_not_kept() -> None:
    answers = [ValueError("no"), "yes"]

    def make() -> str:
        answer = answers.pop(0)
        if isinstance(answer, ValueError):
            raise answer
        return str(answer)

    kept = Kept(make, for_s=5.0)
    with pytest.raises(ValueError, match="no"):
        kept.value()
    assert kept.value() == "yes"
