"""What was asked of a buffer, what it answered, and therefore what it may hold.

The parent process keeps it, out of reach of what happens to its children. An operation is
*acknowledged* (it holds from then on), *refused* (it never happened), or *unknown*: whole or
absent, and from the first look on for good the one that was seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from relive.core.experience import Experience

VISUAL_DIM, TEXT_DIM = 16, 8


class Kind(StrEnum):
    """What can be asked."""

    ADD = "add"
    OUTCOME = "outcome"
    REMOVE = "remove"
    CLEAR = "clear"
    # Refused by every buffer; an answer of any other kind is a bug.
    ADD_BAD = "add something unacceptable"
    ADD_OTHER = "add a known id with other content"


class Fate(StrEnum):
    """What is known of an operation."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


MUST_BE_REFUSED = frozenset({Kind.ADD_BAD, Kind.ADD_OTHER})


@dataclass(frozen=True, slots=True)
class Operation:
    """One call.

    Attributes:
        kind: what is asked.
        ids: of the experiences it is about; several for a group that is added together.
        variant: which content they have, see `experience`.
        retrieval: the retrieval that an outcome cites.
        success: what an outcome says.
    """

    kind: Kind
    ids: tuple[str, ...] = ()
    variant: int = 0
    retrieval: str = ""
    success: bool = False


@dataclass(frozen=True, slots=True)
class Live:
    """An experience as it must be found.

    Attributes:
        variant: which content it has.
        outcomes: retrieval and success, for each that was reported.
    """

    variant: int
    outcomes: frozenset[tuple[str, bool]] = frozenset()


# None: no experience of that id is live.
State = Live | None


class Unexpected(AssertionError):
    """Raised when an answer is impossible, whatever happened."""


@dataclass
class History:
    """The operations on one buffer so far, of all its processes.

    Operations about one id must not run at the same time; those about different ids may.

    Attributes:
        possible: for every id ever named, the states that what is known allows.
        groups: ids that were added together and whose fate is not known yet.
        fates: how many operations ended in which way.
        began: operations under way, by their number.
    """

    possible: dict[str, frozenset[State]] = field(default_factory=dict)
    groups: list[tuple[str, ...]] = field(default_factory=list)
    fates: dict[Fate, int] = field(default_factory=lambda: dict.fromkeys(Fate, 0))
    began: dict[int, Operation] = field(default_factory=dict)
    _started: int = 0

    def begin(self, operation: Operation) -> int:
        """An operation is about to be asked for; returns its number."""
        self._started += 1
        self.began[self._started] = operation
        for experience_id in operation.ids:
            self.possible.setdefault(experience_id, frozenset({None}))
        return self._started

    def end(self, number: int, fate: Fate) -> None:
        """What became of it.

        Raises:
            Unexpected: it cannot have become that.
        """
        operation = self.began.pop(number)
        self.fates[fate] += 1
        if operation.kind in MUST_BE_REFUSED and fate is Fate.ACKNOWLEDGED:
            raise Unexpected(f"accepted, though it must be refused: {operation}")
        if operation.kind not in MUST_BE_REFUSED and fate is Fate.REFUSED:
            raise Unexpected(f"refused, though nothing is wrong with it: {operation}")
        if fate is Fate.REFUSED or operation.kind in MUST_BE_REFUSED:
            return
        touched = self.possible if operation.kind is Kind.CLEAR else operation.ids
        for experience_id in touched:
            before = self.possible[experience_id]
            after = frozenset(applied(state, operation) for state in before)
            self.possible[experience_id] = after if fate is Fate.ACKNOWLEDGED else before | after
        if fate is Fate.UNKNOWN and len(operation.ids) > 1:
            self.groups.append(operation.ids)

    def abandon(self, numbers: Iterable[int]) -> None:
        """Whoever asked is dead: what became of these is unknown."""
        for number in list(numbers):
            self.end(number, Fate.UNKNOWN)

    def settle(self, found: Mapping[str, State]) -> None:
        """What was found holds from now on."""
        for experience_id in self.possible:
            self.possible[experience_id] = frozenset({found.get(experience_id)})
        self.groups.clear()

    def certain(self) -> dict[str, Live]:
        """The experiences that are live for certain, in the order they were first named."""
        return {
            experience_id: state
            for experience_id, states in self.possible.items()
            for state in states
            if state is not None and len(states) == 1
        }


def applied(state: State, operation: Operation) -> State:
    """What one experience is after an operation that took effect."""
    match operation.kind:
        case Kind.ADD:
            return state if state is not None else Live(operation.variant)
        case Kind.OUTCOME:
            if state is None:
                return None
            said = (operation.retrieval, operation.success)
            return replace(state, outcomes=state.outcomes | {said})
        case Kind.REMOVE | Kind.CLEAR:
            return None
        case _:
            return state


def experience(experience_id: str, variant: int) -> Experience:
    """The content of an experience: a function of its id and variant, unlike any other's."""
    random = np.random.default_rng(zlib.crc32(f"{variant}:{experience_id}".encode()))
    which = int(random.integers(0, 5))
    return Experience(
        id=experience_id,
        visual=None if which == 1 else random.standard_normal(VISUAL_DIM).astype(np.float32),
        text=None if which == 2 else random.standard_normal(TEXT_DIM).astype(np.float32),
        question=f"what is {experience_id}?",
        trajectory=[{"action": f"step {n}"} for n in range(int(random.integers(0, 4)))],
        total_reward=float(random.uniform(-1, 1)),
        model_confidence=float(random.uniform(0, 1)),
        final_answer=f"{experience_id}, variant {variant}",
        metadata={"padding": "x" * int(random.integers(0, 600)), "variant": variant},
        timestamp=1_700_000_000_000_000 + variant,
    )


def named(ids: Iterable[str], limit: int = 5) -> str:
    """Some of the ids, for a message."""
    some = sorted(ids)
    return ", ".join(some[:limit]) + (f" and {len(some) - limit} more" if some[limit:] else "")
