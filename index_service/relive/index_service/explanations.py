"""Explanations of retrievals, made one after the other beside the calls that ask for them.

One takes as long as the log is long, and as much memory as a state: so only one is made at a time,
and a call that cannot wait for it asks again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime

from relive.core.explanation import Explanation
from relive.errors import BufferClosed, Overloaded

# Being made, waiting to be, or not fetched yet.
MOST = 8


class Explanations:
    """Those that were asked for and not fetched yet.

    Args:
        explain: makes one.
    """

    def __init__(self, explain: Callable[[str], Explanation]) -> None:
        self._explain = explain
        self._lock = threading.Lock()
        self._asked: dict[str, Future[Explanation]] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False

    def of(self, retrieval_id: str, timeout_s: float) -> Explanation | None:
        """The explanation of a retrieval; None if it takes longer: ask again.

        Raises:
            Overloaded: too many others are being made.
            whatever `explain` raises.
        """
        asked = self._future(retrieval_id)
        try:
            found = asked.result(timeout_s)
        except NotInTime:
            if not asked.done():
                return None
            self._forget(retrieval_id, asked)
            raise
        except BaseException:
            self._forget(retrieval_id, asked)
            raise
        self._forget(retrieval_id, asked)
        return found

    def close(self) -> None:
        """Begin no other one."""
        with self._lock:
            self._closed = True
            if self._thread is not None:
                self._thread.shutdown(wait=False, cancel_futures=True)

    def _future(self, retrieval_id: str) -> Future[Explanation]:
        with self._lock:
            if self._closed:
                raise BufferClosed("the service")
            asked = self._asked.get(retrieval_id)
            if asked is not None:
                return asked
            if len(self._asked) >= MOST:
                self._drop_one_not_fetched()
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="relive-explain")
            asked = self._asked[retrieval_id] = self._thread.submit(self._explain, retrieval_id)
            return asked

    def _drop_one_not_fetched(self) -> None:
        """Whoever asked for it did not come back."""
        ended = next((name for name, asked in self._asked.items() if asked.done()), None)
        if ended is None:
            raise Overloaded(f"{len(self._asked)} explanations are being made")
        del self._asked[ended]

    def _forget(self, retrieval_id: str, asked: Future[Explanation]) -> None:
        with self._lock:
            if self._asked.get(retrieval_id) is asked:
                del self._asked[retrieval_id]
