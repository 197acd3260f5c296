"""The judge itself: it finds every planted bug, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.faults import bugs
from tests.faults.checker import Found, problems
from tests.faults.history import Fate, History, Kind, Operation, Unexpected
from tests.faults.trial import Broken, Trial, make
from tests.faults.worker import Plan


def name_of(bug: Callable[[], None]) -> str:
    return bug.__name__.replace("_", "-")


def used(directory: Path, seed: int, bug: str | None = None) -> Trial:
    """A buffer after a worker that had closed it well, and another that had not."""
    trial = make(directory, seed, store="file")  # LMDB takes a process to look into what was killed
    trial.use(Plan(seed, "a", 120, bug=bug))
    trial.use(Plan(seed, "b", 60, bug=bug, kill_at=("append.before", 30)))
    return trial


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path, seed: int) -> None:
    trial = used(tmp_path, seed)
    found = trial.check(trial.look(close=True))
    assert found.size > 40
    assert trial.history.fates[Fate.ACKNOWLEDGED] > 80
    assert trial.history.fates[Fate.REFUSED] > 4
    assert trial.history.fates[Fate.UNKNOWN] == 1


@pytest.mark.parametrize("bug", bugs.WRITING, ids=name_of)
def test_a_bug_in_a_writer_is_found(tmp_path: Path, bug: Callable[[], None]) -> None:
    with pytest.raises((Broken, Unexpected)):  # noqa: PT012 - either may be the moment
        trial = used(tmp_path, 3, bug.__name__)
        trial.check(trial.look())


@pytest.mark.parametrize("bug", bugs.READING, ids=name_of)
def test_a_bug_in_a_reader_is_found(tmp_path: Path, bug: Callable[[], None]) -> None:
    trial = used(tmp_path, 4)
    trial.check(trial.look())
    with pytest.raises(Broken):
        trial.check(trial.look(bug=bug.__name__))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[History, Found]:
    """A history, one operation of each kind unknown, and what was found after it."""
    trial = used(tmp_path_factory.mktemp("good"), 5)
    found = trial.look()
    assert isinstance(found, Found)
    return trial.history, found


def wrong(history: History, found: Found) -> str:
    return "\n".join(problems(history, found, whole_groups=True, exact_counts=True))


def without(found: Found, experience_id: str) -> Found:
    """As if it had never been."""
    entries = {i: entry for i, entry in found.entries.items() if i != experience_id}
    listed = tuple(i for i in found.listed if i != experience_id)
    return replace(
        found,
        entries=entries,
        listed=listed,
        searched=found.searched - {experience_id},
        size=found.size - 1,
        index_size=found.index_size - 1,
    )


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another visual embedding": ({"visual": bytes(64)}, "another visual embedding"),
    "no embedding": ({"visual": None, "text": None}, "embedding"),
    "other content": ({"document": ()}, "other content"),
    "an outcome less": ({"successes": -1, "retrievals": -1}, "where one of"),
    "a retrieval more": ({"retrievals": 99}, "where one of"),
    "found by another's embedding": ({"nearest": "x"}, "a search for it finds x"),
    "a worse score": ({"score": 0.99}, "with score 0.99"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_experience_that_is_not_what_was_recorded_is_found(
    good: tuple[History, Found], what: str
) -> None:
    history, found = good
    changes, said = CHANGES[what]
    target = next(i for i, e in found.entries.items() if e.visual and e.text and e.retrievals)
    entries = {**found.entries, target: replace(found.entries[target], **changes)}
    assert wrong(history, found) == ""
    assert f"{target}: " in wrong(history, replace(found, entries=entries))
    assert said in wrong(history, replace(found, entries=entries))


def test_what_is_missing_everywhere_is_lost(good: tuple[History, Found]) -> None:
    history, found = good
    lost = next(iter(history.certain()))
    assert wrong(history, without(found, lost)) == f"{lost}: acknowledged and lost"


def test_what_was_removed_refused_or_never_added_must_not_be_there(
    good: tuple[History, Found],
) -> None:
    history, found = good
    entry = next(iter(found.entries.values()))
    gone = [i for i, states in history.possible.items() if states == {None}]
    assert len(gone) > 5
    for stranger in (*gone, "never heard of"):
        more = replace(
            found,
            entries={**found.entries, stranger: entry},
            listed=(*found.listed, stranger),
            searched=found.searched | {stranger},
            size=found.size + 1,
            index_size=found.index_size + 1,
        )
        assert stranger in wrong(history, more)


@pytest.mark.parametrize(
    "change",
    [
        {"listed": ()},
        {"searched": frozenset()},
        {"searched": frozenset({"x"})},
        {"size": 0},
        {"index_size": 0},
        {"quarantined": 1},
        {"digest": "another"},
        {"replayed": "another"},
    ],
    ids=str,
)
def test_views_that_differ_are_found(good: tuple[History, Found], change: dict[str, Any]) -> None:
    history, found = good
    assert wrong(history, replace(found, **change)) != ""


def unsettled(*operations: Operation) -> History:
    history = History()
    history.abandon([history.begin(operation) for operation in operations])
    return history


def test_an_unknown_group_is_whole_or_absent(good: tuple[History, Found]) -> None:
    _, found = good
    ids = tuple(list(found.entries)[:3])
    group = unsettled(Operation(Kind.ADD, ids))
    groups = {"whole": ids, "absent": (), "split": ids[:2]}
    told = {}
    for name, there in groups.items():
        some = replace(
            found,
            entries={i: replace(found.entries[i], retrievals=0, successes=0) for i in there},
            listed=there,
            searched=frozenset(there),
            size=len(there),
            index_size=len(there),
        )
        told[name] = wrong(group, some)
    assert told["whole"] == told["absent"] == ""
    assert "only" in told["split"]


def test_what_was_seen_once_of_an_unknown_operation_holds() -> None:
    add = Operation(Kind.ADD, ("a",))
    history = unsettled(add)
    assert len(history.possible["a"]) == 2
    history.settle({})
    assert history.possible["a"] == {None}
    history = unsettled(add, Operation(Kind.OUTCOME, ("a",), retrieval="r", success=True))
    assert len(history.possible["a"]) == 3  # absent, with the outcome, without it


def test_an_answer_that_cannot_be_right_is_refused() -> None:
    history = History()
    with pytest.raises(Unexpected, match="must be refused"):
        history.end(history.begin(Operation(Kind.ADD_BAD, ("a",))), Fate.ACKNOWLEDGED)
    with pytest.raises(Unexpected, match="nothing is wrong with it"):
        history.end(history.begin(Operation(Kind.ADD, ("b",))), Fate.REFUSED)
