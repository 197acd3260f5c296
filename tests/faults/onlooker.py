"""The child that reads a buffer over and over while others write. Runs in a process of its own."""

from __future__ import annotations

from multiprocessing.connection import Connection
from random import Random

import numpy as np
from tests.faults.history import experience
from tests.faults.place import Place
from tests.faults.worker import Failed

from relive.errors import ReliveError
from relive.testing import watchdog


def watch(place: Place, seed: int, parent: Connection, go: Connection) -> None:
    """Read until told to stop, then send how often it read something; or send how it `Failed`.

    Whatever a search returns has to be an experience with all its content.
    """
    watchdog.die_with_parent()
    chance = Random(seed)
    seen = 0
    try:
        buffer = place.open()
        while not go.poll(0):
            wanted = experience(f"query {chance.random()}", 0)
            for hit in buffer.search(visual=wanted.visual, text=wanted.text, k=5):
                _check(hit.experience, hit.id)
                seen += 1
            assert buffer.stats().size >= 0
        buffer.close()
    except ReliveError as failure:
        parent.send(Failed("read", repr(failure), typed=True))
    except Exception as failure:  # noqa: BLE001 - the parent says what to think of it
        parent.send(Failed("read", repr(failure), typed=False))
    else:
        parent.send(seen)


def _check(found: object, experience_id: str) -> None:
    wanted = experience(experience_id, 0)
    for name in ("visual", "text"):
        mine, theirs = getattr(wanted, name), getattr(found, name)
        assert (mine is None) is (theirs is None), (experience_id, name)
        assert mine is None or np.array_equal(mine, theirs), (experience_id, name)
