"""Handing over a store: where the process that owned it has ended, another one goes on in it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from relive.consumers.committed import last_committed
from relive.consumers.materializer import Materializer
from relive.consumers.recovery import Recovered
from relive.consumers.time_travel import log_at, replay
from relive.errors import ReliveError, StoreInUse
from relive.log import EventLog

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
_RETRY_S = (1.0, 60.0)


class Heir:
    """Waits until a store has no owner, and makes it its materializer's.

    Nothing stops meanwhile: reads and writes wait only while the last few events are folded into
    the store.

    Args:
        materializer: folds in memory until then.
        log: its log.
        recover: opens the store, see `StateDirectory.recover`.
        on_owned: called once the materializer goes on in the store.
    """

    def __init__(
        self,
        materializer: Materializer,
        log: EventLog,
        recover: Callable[[], Recovered],
        on_owned: Callable[[Recovered], None],
    ) -> None:
        self._materializer = materializer
        self._event_log = log
        self._recover = recover
        self._on_owned = on_owned
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="relive-heir", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def close(self) -> None:
        """Wait no longer. A store that is being taken over is taken over first."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _wait(self) -> None:
        pause, longest = _RETRY_S
        wait_s = _LOOK_EVERY_S
        while not self._closing.wait(wait_s) and self._materializer.stopped is None:
            wait_s = _LOOK_EVERY_S
            try:
                recovered = self._recover()
                take_over(self._materializer, self._event_log, recovered)
            except StoreInUse:
                continue
            except ReliveError as error:
                _log.warning("cannot take over the state, trying again in %.0f s: %s", pause, error)
                wait_s, pause = pause, min(2 * pause, longest)
            else:
                _log.info("took over the state from a process that has ended")
                self._on_owned(recovered)
                return


def take_over(materializer: Materializer, log: EventLog, recovered: Recovered) -> None:
    """Go on in a store, which this process has come to own, at the materializer's positions.

    Raises:
        StateDamaged: the store held another state than the log gives.
        whatever folding raises. Then the store is closed, and the materializer as it was.
    """
    store = recovered.store
    try:
        recovered.confirm()
        committed = last_committed(store)
        if committed is not None:
            materializer.catch_up(committed.positions)  # the owner may have been ahead
        # Most of it beside whatever goes on, the rest while nothing does.
        replay(log_at(log, materializer.positions()), store).commit()
        with materializer.locked():
            replay(log_at(log, materializer.positions()), store).commit()
            materializer.go_on_in(recovered)
    except BaseException:
        store.close()
        raise
