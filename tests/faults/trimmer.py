"""The child that trims a log. Runs in a process of its own."""

from __future__ import annotations

from multiprocessing.connection import Connection

from tests.faults import points
from tests.faults.place import Place

from relive.log import open_log
from relive.testing import watchdog


def trim(
    place: Place,
    position: int,
    kill_at: tuple[str, int] | None,
    parent: Connection,
    go: Connection,
) -> None:
    """Remove the records before a position, once told to go."""
    watchdog.die_with_parent()
    go.recv_bytes()
    points.watch(kill_at)
    log = open_log(place.log_url)
    log.truncate_before(0, position)
    log.close()
    parent.send("trimmed")
