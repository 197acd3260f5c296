"""The event ids of the last records, so that late duplicates are noticed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from relive.schemas.events import EVENT_ID_BYTES

WINDOW = 100_000


class RecentIds:
    """A sliding window of event ids, in order of arrival.

    Attributes:
        end: how many ids were ever added.
        digest: sum of the ids in the window, mod 2**128.
    """

    def __init__(self, end: int = 0, ids: Iterable[bytes] = (), window: int = WINDOW) -> None:
        self._window = window
        self._order = deque(deque(ids, maxlen=window))
        self._known = set(self._order)
        self.end = end
        self.digest = _sum(self._order) % 2**128

    def __contains__(self, event_id: bytes) -> bool:
        return event_id in self._known

    @property
    def start(self) -> int:
        """The number of the oldest id in the window."""
        return self.end - len(self._order)

    def has_none_of(self, event_ids: Iterable[bytes]) -> bool:
        """Whether none of the ids is in the window."""
        return self._known.isdisjoint(event_ids)

    def add(self, event_ids: Sequence[bytes]) -> None:
        """Add different ids that are not in the window; the oldest leave a full one."""
        self._order.extend(event_ids)
        self._known.update(event_ids)
        self.end += len(event_ids)
        delta = _sum(event_ids)
        if (too_many := len(self._order) - self._window) > 0:
            oldest = [self._order.popleft() for _ in range(too_many)]
            self._known.difference_update(oldest)
            delta -= _sum(oldest)
        self.digest = (self.digest + delta) % 2**128

    def packed(self, start: int, stop: int) -> bytes:
        """The ids numbered start to stop - 1, joined; both within the window."""
        newest_first = islice(reversed(self._order), self.end - stop, self.end - start)
        return b"".join(list(newest_first)[::-1])


def _sum(event_ids: Iterable[bytes]) -> int:
    return sum([int.from_bytes(event_id, "little") for event_id in event_ids])


def unpack_ids(packed: bytes) -> list[bytes]:
    """The ids that `packed` joined."""
    size = EVENT_ID_BYTES
    return [packed[at : at + size] for at in range(0, len(packed), size)]
