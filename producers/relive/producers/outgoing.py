"""An event on its way to the log, which its publisher's caller holds as a Future."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from relive.core.results import Token
from relive.errors import ReliveError
from relive.log import NewRecord

# Held while an event is settled, and while what a Future consists of is made for one: so that
# whoever looks at it is told. Reentrant, since a garbage collection in between may run anything.
_settling = threading.RLock()


class Trace(NamedTuple):
    """Of an experience on its way: the id of its event, and the span of its publisher's caller."""

    event_id: bytes
    caller: Any


class Outgoing(Future[Token]):
    """An event on its way: a Future of its token.

    What a Future consists of, six objects, is made when somebody first looks for it. Most are never
    looked at, or once they are settled; but the garbage collector would look at all of them.

    Args:
        record: to append.
        experience_id: whom it is about.
        published_s: when it was, by the monotonic clock.
        trace: if its caller's trace is recorded.

    Attributes:
        record: see above; let go of once it is durable.
        partition, position: where it is then.
        error: why it was given up, if it was.
        is_watched: somebody has looked at it.
    """

    partition = 0
    position: int | None = None
    error: ReliveError | None = None
    is_watched = False

    def __init__(
        self, record: NewRecord, experience_id: str, published_s: float, trace: Trace | None
    ) -> None:
        # Without Future's own: see __getattr__.
        self.record = record
        self.experience_id = experience_id
        self.published_s = published_s
        self.trace = trace

    def __getattr__(self, name: str) -> Any:
        """An attribute that isn't there: one of Future's, in whichever version of Python."""
        with _settling:
            if not self.is_watched:
                whole: Future[Token] = Future()
                self._tell(whole)
                self.__dict__.update(whole.__dict__)  # at once, for who looks without the lock
                self.is_watched = True
        return object.__getattribute__(self, name)

    def cancel(self) -> bool:
        return False  # what may be on its way stays so

    def tell(self) -> None:
        """Wake whoever waits for it."""
        self._tell(self)

    def _tell(self, future: Future[Token]) -> None:
        if self.position is not None:
            future.set_result(Token(self.experience_id, self.partition, self.position))
        elif self.error is not None:
            future.set_exception(self.error)


def acknowledge(group: Sequence[Outgoing], positions: Sequence[int]) -> None:
    """Events are durable, at these positions."""
    with _settling:
        for each, position in zip(group, positions, strict=True):
            each.partition, each.position = each.record.partition, position
            del each.record  # whoever keeps many futures keeps no bytes
        watched = [each for each in group if each.is_watched]
    for each in watched:
        each.tell()


def give_up(group: Sequence[Outgoing], error: ReliveError) -> None:
    """Events were not acknowledged, and are not tried any more."""
    with _settling:
        for each in group:
            each.error = error
        watched = [each for each in group if each.is_watched]
    for each in watched:
        each.tell()
