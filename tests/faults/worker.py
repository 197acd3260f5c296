"""The child that uses a buffer until it ends or is killed. Runs in a process of its own.

Before every operation it tells the parent what it is about to do, and afterwards how it ended. A
message is one small write to a pipe, which a kill cannot tear.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from tests.faults import bugs, points
from tests.faults.history import Fate, Kind, Live, Operation, experience
from tests.faults.place import Place

from relive.buffer import Experience, ExperienceBuffer
from relive.errors import DuplicateExperience, FieldError, PayloadTooLarge, ReliveError
from relive.testing import watchdog

# After a failure, before the next operation: so that what the parent does about it comes in time.
_PATIENCE_S = 0.005


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker does.

    Attributes:
        seed: decides everything that is left to chance.
        name: in the ids that it makes.
        operations: how many, of each thread.
        threads: that use the buffer at the same time.
        known: experiences that are live, to report outcomes of and to remove; of one thread.
        commit_every: records between commits of the state; small, so that there are many.
        snapshots: whether it takes some; only the owner of the state may.
        reopen: whether it closes and opens the buffer now and then, and clears it.
        kill_at: a named point and at which of its occurrences to die; None to live.
        bug: to plant, by name.
        patient: after an operation of unknown fate, go on; otherwise stop there.
        map_bytes: the most that the LMDB store may hold; None for its default.
    """

    seed: int
    name: str = "w"
    operations: int = 60
    threads: int = 1
    known: Mapping[str, Live] = field(default_factory=dict)
    commit_every: int = 20
    snapshots: bool = True
    reopen: bool = False
    kill_at: tuple[str, int] | None = None
    bug: str | None = None
    patient: bool = False
    map_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The buffer is open."""


@dataclass(frozen=True, slots=True)
class Began:
    """An operation is about to be asked for."""

    thread: int
    operation: Operation


@dataclass(frozen=True, slots=True)
class Ended:
    """It ended.

    Attributes:
        error: what was raised, as text.
        typed: whether that was an error of Relive's own.
    """

    thread: int
    fate: Fate
    error: str = ""
    typed: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """Something else than an operation failed: opening, reading, flushing or closing."""

    what: str
    error: str
    typed: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything was done and the buffer closed.

    Attributes:
        hits: how often each point was passed.
    """

    hits: Mapping[str, int]


Message = Opened | Began | Ended | Failed | Finished


def work(place: Place, plan: Plan, parent: Connection, go: Connection | None = None) -> None:
    """Carry out the plan.

    Args:
        place: of the buffer.
        plan: what to do.
        parent: to tell.
        go: if given, wait for a byte on it before doing anything.
    """
    watchdog.die_with_parent()
    if go is not None:
        go.recv_bytes()
    points.commit_every(plan.commit_every)
    if plan.map_bytes is not None:
        points.small_map(plan.map_bytes)
    hits = points.watch(plan.kill_at)
    if plan.bug is not None:
        bugs.plant(plan.bug)
    Worker(place, plan, parent).run()
    parent.send(Finished(hits()))


class Worker:
    """Carries out a plan and tells of it."""

    def __init__(self, place: Place, plan: Plan, parent: Connection) -> None:
        self._place = place
        self._plan = plan
        self._parent = parent
        self._telling = threading.Lock()
        self._buffer: ExperienceBuffer | None = None

    def run(self) -> None:
        if not self._open():
            return
        threads = [
            threading.Thread(target=self._use, args=(number,), daemon=True)
            for number in range(1, self._plan.threads)
        ]
        for thread in threads:
            thread.start()
        self._use(0)
        for thread in threads:
            thread.join()
        self._close()

    def tell(self, message: Message) -> None:
        with self._telling:
            self._parent.send(message)

    def _open(self) -> bool:
        opened = self._other("open", self._place.open)
        if isinstance(opened, ExperienceBuffer):
            self._buffer = opened
            self.tell(Opened())
            return True
        return False

    def _close(self) -> None:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._other("close", buffer.close)

    def _use(self, thread: int) -> None:
        plan = self._plan
        chance = random.Random(f"{plan.seed}:{plan.name}:{thread}")
        mine = dict(plan.known) if thread == 0 else {}
        for step in steps(chance, f"{plan.name}{thread}", mine, plan):
            if isinstance(step, Operation):
                fate = self._do(thread, step)
                follow(mine, step, fate)
                if fate is Fate.UNKNOWN:
                    if not plan.patient:
                        return
                    time.sleep(_PATIENCE_S)
            elif step == "reopen":
                self._close()
                if not self._open():
                    return
            elif self._buffer is not None:
                READS[step](self, chance)

    def _do(self, thread: int, operation: Operation) -> Fate:
        assert self._buffer is not None
        self.tell(Began(thread, operation))
        error, typed = "", True
        try:
            ask(self._buffer, operation)
            fate = Fate.ACKNOWLEDGED
        except (FieldError, DuplicateExperience, PayloadTooLarge) as refused:
            fate, error = Fate.REFUSED, repr(refused)
        except ReliveError as failure:
            fate, error = Fate.UNKNOWN, repr(failure)
        except Exception as failure:  # noqa: BLE001 - the parent says what to think of it
            fate, error, typed = Fate.UNKNOWN, repr(failure), False
        self.tell(Ended(thread, fate, error, typed))
        return fate

    def _other(self, what: str, call: Callable[[], object]) -> object:
        try:
            return call()
        except ReliveError as failure:
            self.tell(Failed(what, repr(failure), typed=True))
        except Exception as failure:  # noqa: BLE001 - the parent says what to think of it
            self.tell(Failed(what, repr(failure), typed=False))
        return None

    def _search(self, chance: random.Random) -> None:
        wanted = experience(f"query {chance.random()}", 0)
        buffer = self._buffer
        assert buffer is not None
        self._other("search", lambda: buffer.search(visual=wanted.visual, text=wanted.text, k=5))

    def _sample(self, chance: random.Random) -> None:
        buffer = self._buffer
        assert buffer is not None
        self._other("sample", lambda: buffer.sample(8, seed=chance.randrange(1_000)))

    def _flush(self, chance: random.Random) -> None:
        assert self._buffer is not None
        self._other("flush", self._buffer.flush)

    def _snapshot(self, chance: random.Random) -> None:
        assert self._buffer is not None
        self._other("snapshot", self._buffer.snapshot)


READS: Mapping[str, Callable[[Worker, random.Random], None]] = {
    "search": Worker._search,
    "sample": Worker._sample,
    "flush": Worker._flush,
    "snapshot": Worker._snapshot,
}

# How often each step comes, relative to the others.
FREQUENCIES = {
    "add": 40,
    "add many": 8,
    "add again": 4,
    "add bad": 3,
    "add other": 3,
    "outcome": 22,
    "remove": 7,
    "search": 5,
    "sample": 3,
    "flush": 5,
}
RARELY = {"reopen": 2, "clear": 1}


def steps(
    chance: random.Random, name: str, mine: Mapping[str, Live], plan: Plan
) -> Iterator[Operation | str]:
    """What to do next; `mine` are the experiences that are live by now."""
    frequencies = FREQUENCIES | (RARELY if plan.reopen else {})
    if plan.snapshots:
        frequencies = {**frequencies, "snapshot": 2}
    for number in range(plan.operations):
        (kind,) = chance.choices(list(frequencies), list(frequencies.values()))
        fresh = f"{name}-{plan.seed}-{number}"
        some = chance.choice(list(mine)) if mine else None
        if kind in READS or kind == "reopen":
            yield kind
        elif kind == "clear":
            yield Operation(Kind.CLEAR)
        elif kind == "add many":
            group = tuple(f"{fresh}-{n}" for n in range(chance.randrange(2, 8)))
            yield Operation(Kind.ADD, group)
        elif kind == "add bad":
            yield Operation(Kind.ADD_BAD, (f"{fresh}-bad",), chance.randrange(len(SPOILT)))
        elif kind == "add" or some is None:
            yield Operation(Kind.ADD, (fresh,))
        elif kind == "add again":
            yield Operation(Kind.ADD, (some,), mine[some].variant)
        elif kind == "add other":
            yield Operation(Kind.ADD_OTHER, (some,), mine[some].variant + 1)
        elif kind == "outcome":
            success = chance.random() < 0.6
            yield Operation(Kind.OUTCOME, (some,), retrieval=f"r-{fresh}", success=success)
        else:
            yield Operation(Kind.REMOVE, (some,))


def follow(mine: dict[str, Live], operation: Operation, fate: Fate) -> None:
    """Keep what is live for certain up to date."""
    if fate is Fate.UNKNOWN:
        for experience_id in operation.ids if operation.kind is not Kind.CLEAR else list(mine):
            mine.pop(experience_id, None)
    elif fate is Fate.ACKNOWLEDGED and operation.kind is Kind.ADD:
        mine.update({i: Live(operation.variant) for i in operation.ids})
    elif operation.kind is Kind.REMOVE:
        mine.pop(operation.ids[0], None)
    elif operation.kind is Kind.CLEAR:
        mine.clear()


def ask(buffer: ExperienceBuffer, operation: Operation) -> None:
    """Carry out an operation."""
    match operation.kind:
        case Kind.ADD if len(operation.ids) == 1:
            buffer.add(experience(operation.ids[0], operation.variant))
        case Kind.ADD:
            buffer.add_many([experience(i, operation.variant) for i in operation.ids])
        case Kind.ADD_OTHER:
            buffer.add(experience(operation.ids[0], operation.variant))
        case Kind.ADD_BAD:
            buffer.add(SPOILT[operation.variant](experience(operation.ids[0], 0)))
        case Kind.OUTCOME:
            buffer.report_outcome(operation.retrieval, operation.ids[0], success=operation.success)
        case Kind.REMOVE:
            buffer.remove(operation.ids[0])
        case Kind.CLEAR:
            buffer.clear()


SPOILT: tuple[Callable[[Experience], Experience], ...] = (
    lambda e: Experience(id=e.id, visual=[float("nan")] * 16),
    lambda e: Experience(id=e.id, text=[1.0, 2.0]),
    lambda e: Experience(id=e.id),
    lambda e: Experience(id=e.id, visual=[1.0] * 16, metadata={"a": "x" * 2_000_000}),
)
