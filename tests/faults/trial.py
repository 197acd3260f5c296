"""One buffer through its misfortunes: used, killed, reopened, and judged."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from tests.faults.checker import Found, problems, states_found
from tests.faults.children import Child, started
from tests.faults.history import Fate, History
from tests.faults.place import Place
from tests.faults.reader import read
from tests.faults.worker import Began, Ended, Failed, Finished, Message, Opened, Plan, work


class Broken(AssertionError):
    """Raised when a buffer does what it must not."""


@dataclass(frozen=True, slots=True)
class Used:
    """How a worker ended.

    Attributes:
        code: its exit code, negative for a signal.
        failures: typed errors of anything but operations.
        unknown: errors of the operations whose fate is unknown.
        hits: how often each point was passed; None if it did not finish.
    """

    code: int
    failures: tuple[Failed, ...]
    unknown: tuple[str, ...]
    hits: Mapping[str, int] | None

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass
class Trial:
    """A buffer and the history of all that was done to it.

    Attributes:
        place: where it is.
        seed: what to give to see the same again, as far as threads and time allow.
        history: kept here, in the parent.
        late_arrivals: whether an append of a dead process may still become visible, so that what
            is absent at one look may be there at the next.
    """

    place: Place
    seed: int
    history: History = field(default_factory=History)
    late_arrivals: bool = False
    _noting: threading.Lock = field(default_factory=threading.Lock)

    def use(
        self,
        plan: Plan,
        *,
        alone: bool = True,
        kill_after_s: float | None = None,
        trace: Callable[[Child], None] | None = None,
        watch: Callable[[Message], None] = lambda message: None,
    ) -> Used:
        """Run a worker until it ends.

        Args:
            plan: what it does; the experiences that are live are filled in.
            alone: whether no other worker runs at the same time. Otherwise it leaves what is
                there to others.
            kill_after_s: kill it this long after it has opened the buffer; negative: that long
                after its start, opened or not.
            trace: attaches something to the child before it begins.
            watch: called with everything that the worker tells.

        Raises:
            Broken: it died of a signal other than SIGKILL, raised an error that is not typed, or
                answered what it must not.
        """
        if alone:
            plan = replace(plan, known=self.history.certain())
        with started(work, self.place, plan, go=trace is not None) as child:
            if trace is not None:
                trace(child)
                child.release()
            return self._follow(child, kill_after_s, watch)

    def _follow(
        self, child: Child, kill_after_s: float | None, watch: Callable[[Message], None]
    ) -> Used:
        numbers: dict[int, int] = {}
        failures: list[Failed] = []
        unknown: list[str] = []
        hits = None
        until = None
        if kill_after_s is not None and kill_after_s < 0:
            until = time.monotonic() - kill_after_s
        while True:
            for message in child.messages(until):
                watch(message)
                match message:
                    case Opened() if kill_after_s is not None and until is None:
                        until = time.monotonic() + kill_after_s
                        break
                    case Began():
                        with self._noting:
                            numbers[message.thread] = self.history.begin(message.operation)
                    case Ended():
                        self._check_typed(message)
                        with self._noting:
                            self.history.end(numbers.pop(message.thread), message.fate)
                        if message.fate is Fate.UNKNOWN:
                            unknown.append(message.error)
                    case Failed():
                        self._check_typed(message)
                        failures.append(message)
                    case Finished():
                        hits = message.hits
            else:
                if until is None:
                    break
                child.kill()
                until = None  # read what it had sent
        code = child.end()
        with self._noting:
            self.history.abandon(numbers.values())
        if code not in (0, -signal.SIGKILL):
            raise Broken(self._told(f"the worker ended with code {code}"))
        return Used(code, tuple(failures), tuple(unknown), hits)

    def look(
        self,
        *,
        kill_at: tuple[str, int] | None = None,
        kill_after_s: float | None = None,
        bug: str | None = None,
        close: bool = False,
    ) -> Found | Failed | None:
        """Reopen the buffer in another process and read it all.

        Args:
            kill_at: where to kill it, see `points.watch`.
            kill_after_s: when to kill it, from its start.
            bug: to plant, by name.
            close: whether it may close the buffer; otherwise it is killed once it has answered.

        Returns:
            what was found or how that failed; None if it was killed before.

        Raises:
            Broken: it died of a signal by itself, or raised an error that is not typed.
        """
        ids = list(self.history.possible)
        until = None if kill_after_s is None else time.monotonic() + kill_after_s
        answer: Found | Failed | None = None
        with started(_read, self.place, ids, kill_at, bug) as child:
            for message in child.messages(until):
                answer = message
                if isinstance(answer, Failed) or not close:
                    break
            if until is not None or not close:
                child.kill()
            code = child.end()
        meant = kill_at is not None or until is not None or not close
        if code != 0 and not (meant and code == -signal.SIGKILL):
            raise Broken(self._told(f"reading it ended with code {code}"))
        if answer is None and kill_at is None and until is None:
            raise Broken(self._told(f"reading it ended with code {code} and no answer"))
        if isinstance(answer, Failed):
            self._check_typed(answer)
        return answer

    def check(self, found: Found | Failed | None) -> Found:
        """Judge what was found; from then on it holds.

        Raises:
            Broken: it contradicts the history, or could not be read.
        """
        if not isinstance(found, Found):
            raise Broken(self._told(f"it cannot be read: {found}"))
        wrong = problems(
            self.history,
            found,
            whole_groups=self.place.log is None,
            exact_counts=not self.place.record_retrievals,
        )
        if wrong:
            raise Broken(self._told(*wrong))
        if not self.late_arrivals:
            self.history.settle(states_found(self.history, found))
        return found

    def delete(self) -> None:
        """Remove the buffer's files."""
        shutil.rmtree(self.place.directory)

    def _check_typed(self, message: Ended | Failed) -> None:
        if not message.typed:
            what = "" if isinstance(message, Ended) else f"{message.what}: "
            raise Broken(self._told(f"an error that is not typed: {what}{message.error}"))

    def _told(self, *wrong: str) -> str:
        shown = wrong[:8] + ((f"and {len(wrong) - 8} more",) if wrong[8:] else ())
        return "\n  ".join([f"seed {self.seed}, {self.place}:", *shown])


def _read(
    place: Place,
    ids: list[str],
    kill_at: tuple[str, int] | None,
    bug: str | None,
    parent: Connection,
) -> None:
    read(place, ids, parent, kill_at, bug)


def make(directory: Path, seed: int, **options: object) -> Trial:
    """A trial in a directory of its own."""
    return Trial(Place(directory / f"buffer-{seed}", **options), seed)  # type: ignore[arg-type]
