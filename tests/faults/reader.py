"""The child that reopens a buffer and says what it finds there. Runs in a process of its own."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
from tests.faults import bugs, points
from tests.faults.checker import Entry, Found, document
from tests.faults.history import TEXT_DIM, VISUAL_DIM
from tests.faults.place import Place
from tests.faults.worker import Failed

from relive.buffer import Experience, ExperienceBuffer
from relive.consumers import MemoryStore
from relive.consumers.snapshot_loading import state_before_end
from relive.consumers.snapshots import Snapshots
from relive.consumers.time_travel import replay
from relive.errors import ReliveError
from relive.log import log_now, open_log
from relive.testing import watchdog


def read(
    place: Place,
    ids: Collection[str],
    parent: Connection,
    kill_at: tuple[str, int] | None = None,
    bug: str | None = None,
) -> None:
    """Open the buffer, send what is `Found`, and close it; or send how it `Failed`.

    Args:
        place: of the buffer.
        ids: to ask for, besides those that are listed.
        parent: to tell.
        kill_at: see `points.watch`.
        bug: to plant, by name.
    """
    watchdog.die_with_parent()
    points.watch(kill_at)
    if bug is not None:
        bugs.plant(bug)
    what = "open"
    try:
        buffer = replace(place, record_retrievals=False).open()
        what = "read"
        parent.send(look(buffer, ids, place))
        what = "close"
        buffer.close()
    except ReliveError as failure:
        parent.send(Failed(what, repr(failure), typed=True))
    except Exception as failure:  # noqa: BLE001 - the parent says what to think of it
        parent.send(Failed(what, repr(failure), typed=False))


def look(buffer: ExperienceBuffer, ids: Collection[str], place: Place) -> Found:
    """Everything that there is to see, by every way of reading."""
    listed = tuple(buffer.ids())
    entries = {}
    for experience_id in dict.fromkeys([*ids, *listed]):
        content = buffer.get(experience_id)
        if content is not None:
            entries[experience_id] = _entry(buffer, content)
    stats = buffer.stats()
    searched: set[str] = set()
    k = len(entries) + 10
    for result in (
        buffer.search(visual=np.ones(VISUAL_DIM), k=k),
        buffer.search(text=np.ones(TEXT_DIM), k=k),
    ):
        searched |= {hit.id for hit in result}
    return Found(
        entries=entries,
        listed=listed,
        searched=frozenset(searched),
        size=stats.size,
        index_size=stats.index_size,
        quarantined=stats.quarantined,
        digest=stats.digest,
        # Last: it reads the log, and must not be what brings its damage to light.
        replayed=clean_digest(place),
    )


def clean_digest(place: Place) -> str:
    """Of a replay in memory: from the log's beginning, or from the oldest snapshot if that is gone.

    Raises:
        LogGap: nothing holds what was removed.
    """
    with closing(open_log(place.log_url)) as log:
        past = log_now(log)
        is_whole = all(log.bounds(partition).first == 0 for partition in range(log.partitions))
        snapshots = Snapshots(place.directory / "snapshots")
        first = MemoryStore() if is_whole else state_before_end(snapshots, past, oldest=True)
        materializer = replay(past, first)
        try:
            return materializer.digest()
        finally:
            materializer.close()


def _entry(buffer: ExperienceBuffer, content: Experience) -> Entry:
    result = buffer.search(visual=content.visual, text=content.text, k=1)
    return Entry(
        visual=None if content.visual is None else np.asarray(content.visual).tobytes(),
        text=None if content.text is None else np.asarray(content.text).tobytes(),
        document=document(content),
        retrievals=content.retrieval_count,
        successes=content.success_count,
        nearest=result[0].id if len(result) else None,
        score=result[0].score if len(result) else 0.0,
    )
