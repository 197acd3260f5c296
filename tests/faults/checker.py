"""Compares a reopened buffer with the history: the judge of every fault test.

Itself proved in `test_checker.py`, by bugs that are planted for it to find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.faults.history import History, Live, State, experience, named


@dataclass(frozen=True, slots=True)
class Entry:
    """One live experience as it was read.

    Attributes:
        visual, text: bytes of the embeddings.
        document: the rest of what was recorded.
        retrievals, successes: what has come of it.
        nearest: the id of the best hit of a search with its own embeddings.
        score: of that hit.
    """

    visual: bytes | None
    text: bytes | None
    document: tuple[Any, ...]
    retrievals: int
    successes: int
    nearest: str | None
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a reopened buffer showed. Comes from another process: reading may end that one.

    Attributes:
        entries: what `get` says of every id in the history and of every one that is listed.
        listed: what `ids` says.
        searched: the ids that searches for everything returned.
        size, index_size, quarantined: what `stats` says.
        digest: of the reopened buffer.
        replayed: of a clean replay in memory.
    """

    entries: Mapping[str, Entry]
    listed: tuple[str, ...]
    searched: frozenset[str]
    size: int
    index_size: int
    quarantined: int
    digest: str
    replayed: str


def problems(
    history: History, found: Found, *, whole_groups: bool, exact_counts: bool
) -> list[str]:
    """Everything that is wrong, in words; empty if nothing is.

    Args:
        history: of every process that wrote.
        found: after it.
        whole_groups: whether a group that was added together must be all there or all absent.
        exact_counts: whether nothing but outcomes counts as a retrieval.
    """
    return [
        *_wrong_states(history, found, exact_counts),
        *(_split_groups(history, found) if whole_groups else []),
        *_strangers(history, found),
        *_disagreements(found),
    ]


def states_found(history: History, found: Found) -> dict[str, State]:
    """What each id turned out to be; only valid where `problems` are none."""
    return {
        experience_id: _match(states, found.entries.get(experience_id), exact_counts=False)
        for experience_id, states in history.possible.items()
    }


def _wrong_states(history: History, found: Found, exact_counts: bool) -> list[str]:
    wrong = []
    for experience_id, states in history.possible.items():
        entry = found.entries.get(experience_id)
        if not any(_is(state, experience_id, entry, exact_counts) for state in states):
            wrong.append(_explained(experience_id, states, entry, exact_counts))
    return wrong


def _match(states: frozenset[State], entry: Entry | None, *, exact_counts: bool) -> State:
    if entry is None:
        return None
    live = [s for s in states if s is not None and _counts(s, entry, exact_counts)]
    # Where counts do not tell, the most that fits.
    return max(live, key=lambda state: len(state.outcomes), default=None)


def _is(state: State, experience_id: str, entry: Entry | None, exact_counts: bool) -> bool:
    if state is None or entry is None:
        return state is None and entry is None
    return not _differences(state, experience_id, entry) and _counts(state, entry, exact_counts)


def _counts(state: Live, entry: Entry, exact_counts: bool) -> bool:
    successes = sum(success for _, success in state.outcomes)
    retrievals = len(state.outcomes)
    enough = entry.retrievals == retrievals if exact_counts else entry.retrievals >= retrievals
    return enough and entry.successes == successes


def _differences(state: Live, experience_id: str, entry: Entry) -> list[str]:
    wanted = experience(experience_id, state.variant)
    differences = []
    for name in ("visual", "text"):
        vector = getattr(wanted, name)
        if getattr(entry, name) != (None if vector is None else np.asarray(vector).tobytes()):
            differences.append(f"another {name} embedding")
    if entry.document != document(wanted):
        differences.append(f"other content: {entry.document}")
    if entry.nearest != experience_id or not abs(entry.score - 1.0) < 1e-5:
        differences.append(f"a search for it finds {entry.nearest} with score {entry.score}")
    return differences


def document(content: Any) -> tuple[Any, ...]:
    """What was recorded of an experience besides its embeddings."""
    return (
        content.question,
        [dict(action) for action in content.trajectory],
        content.total_reward,
        content.model_confidence,
        content.final_answer,
        dict(content.metadata),
        content.timestamp,
    )


def _explained(
    experience_id: str, states: frozenset[State], entry: Entry | None, exact_counts: bool
) -> str:
    live = [state for state in states if state is not None]
    if entry is None:
        return f"{experience_id}: acknowledged and lost"
    if not live:
        return f"{experience_id}: there, though it was removed or never accepted"
    for state in live:
        if different := _differences(state, experience_id, entry):
            return f"{experience_id}: {'; '.join(different)}"
    wanted = sorted((len(s.outcomes), sum(success for _, success in s.outcomes)) for s in live)
    comparison = "" if exact_counts else "at least "
    return (
        f"{experience_id}: {entry.retrievals} retrievals and {entry.successes} successes, "
        f"where {comparison}one of {wanted} was reported"
    )


def _split_groups(history: History, found: Found) -> list[str]:
    split = []
    for ids in history.groups:
        there = [i for i in ids if i in found.entries]
        if 0 < len(there) < len(ids):
            split.append(f"of the group {named(ids)} only {named(there)} is there")
    return split


def _strangers(history: History, found: Found) -> list[str]:
    strangers = found.entries.keys() - history.possible.keys()
    return [f"nobody ever added {named(strangers)}"] if strangers else []


def _disagreements(found: Found) -> list[str]:
    """The views of one buffer that differ from each other."""
    there = found.entries.keys()
    wrong = []
    if len(set(found.listed)) != len(found.listed):
        wrong.append("ids() lists one twice")
    if set(found.listed) != there:
        wrong.append(f"ids() and get() differ about {named(set(found.listed) ^ there)}")
    if found.searched != there:
        wrong.append(f"search() and get() differ about {named(found.searched ^ there)}")
    for name in ("size", "index_size"):
        if getattr(found, name) != len(there):
            wrong.append(f"{name} is {getattr(found, name)}, live are {len(there)}")
    if found.quarantined:
        wrong.append(f"{found.quarantined} of our own events are in quarantine")
    if found.digest != found.replayed:
        wrong.append(f"digest {found.digest}, of a clean replay {found.replayed}")
    return wrong
