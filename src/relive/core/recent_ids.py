"""The event ids of the last records, so that late duplicates are noticed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
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
        self._order: deque[bytes] = deque(ids, maxlen=window)
        self._known = set(self._order)
        self.end = end
        self.digest = sum(int.from_bytes(i, "little") for i in self._order) % 2**128

    def __contains__(self, event_id: bytes) -> bool:
        return event_id in self._known

    @property
    def start(self) -> int:
        """The number of the oldest id in the window."""
        return self.end - len(self._order)

    def add(self, event_id: bytes) -> None:
        """Add an id that is not in the window; the oldest leaves a full one."""
        delta = int.from_bytes(event_id, "little")
        if len(self._order) == self._window:
            oldest = self._order.popleft()
            self._known.remove(oldest)
            delta -= int.from_bytes(oldest, "little")
        self._order.append(event_id)
        self._known.add(event_id)
        self.end += 1
        self.digest = (self.digest + delta) % 2**128

    def packed(self, start: int, stop: int) -> bytes:
        """The ids numbered start to stop - 1, joined; both within the window."""
        newest_first = islice(reversed(self._order), self.end - stop, self.end - start)
        return b"".join(list(newest_first)[::-1])


def unpack_ids(packed: bytes) -> list[bytes]:
    """The ids that `packed` joined."""
    size = EVENT_ID_BYTES
    return [packed[at : at + size] for at in range(0, len(packed), size)]
