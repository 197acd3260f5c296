"""Named points of the product at which a child can die, and how it does.

The product has no hooks for it: the child wraps the concrete methods, in its own process only.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from relive import buffer
from relive.consumers import LmdbStore, Materializer, materializer, snapshot_writer
from relive.consumers.durable_store import DurableStore
from relive.consumers.recovery import StateDirectory
from relive.consumers.snapshotter import Snapshotter
from relive.core.tail import Tail
from relive.index_service import Engine
from relive.index_service.projections import Projections
from relive.log.kafka import KafkaLog
from relive.log.log_end import SharedEnd
from relive.log.sqlite import SqliteLog
from relive.log.wal_sync import WalSync

# Each is passed before and after: "append.before", "append.after", … A snapshot that is written
# tells of its steps by itself.
STEPS: Mapping[str, tuple[tuple[object, str], ...]] = {
    "open log": ((SqliteLog, "__init__"), (KafkaLog, "__init__")),
    "recover": ((StateDirectory, "recover"),),
    "open store": ((DurableStore, "__init__"),),
    "load": ((Projections, "load"),),
    "settings": ((buffer, "_put_in_force"),),
    "append": ((SqliteLog, "append"), (KafkaLog, "append")),
    "note the end": ((SharedEnd, "note"),),
    "sync": ((WalSync, "sync"),),
    "acknowledge": ((SharedEnd, "acknowledge"),),
    "fold": ((materializer, "fold_batch"),),
    "follow": ((Engine, "_follow"),),
    "save": ((Materializer, "commit"),),
    "commit": ((DurableStore, "commit"),),
    "freeze the tail": ((Tail, "freeze"),),
    "forget the tail": ((Tail, "melt"),),
    "fsync": ((os, "fsync"), (os, "fdatasync")),
    "rename": ((os, "rename"), (os, "replace")),
    "retention": ((SqliteLog, "truncate_before"), (KafkaLog, "truncate_before")),
    "close store": ((DurableStore, "close"),),
    "close log": ((SqliteLog, "close"), (KafkaLog, "close")),
}


def names() -> Iterator[str]:
    """Every point."""
    for step in STEPS:
        yield f"{step}.before"
        yield f"{step}.after"
    for step in snapshot_writer.STEPS:
        yield f"snapshot {step}.before"


def watch(kill_at: tuple[str, int] | None) -> Callable[[], Mapping[str, int]]:
    """Count how often each point is passed, and die at the n-th time one of them is.

    Returns:
        the counts so far.
    """
    counted: Counter[str] = Counter()
    counting = threading.Lock()

    def passed(point: str) -> None:
        with counting:
            counted[point] += 1
            if kill_at == (point, counted[point]):
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at is not None and kill_at[0] not in names():
        raise ValueError(f"there is no point {kill_at[0]!r}")
    for step, places in STEPS.items():
        for owner, name in places:
            _wrap(owner, name, step, passed)
    _default_step(lambda name: passed(f"snapshot {name}.before"))
    return lambda: dict(counted)


def _default_step(step: Callable[[str], None]) -> None:
    options = Snapshotter.__init__.__defaults__
    assert options == (snapshot_writer.no_step,)
    Snapshotter.__init__.__defaults__ = (step,)


def _wrap(owner: object, name: str, step: str, passed: Callable[[str], None]) -> None:
    inner = getattr(owner, name)

    def outer(*arguments: Any, **options: Any) -> Any:
        passed(f"{step}.before")
        returned = inner(*arguments, **options)
        passed(f"{step}.after")
        return returned

    setattr(owner, name, outer)


def commit_every(records: int) -> None:
    """Have the state committed more often than anybody would."""
    options = Materializer.__init__.__kwdefaults__
    assert options is not None
    assert "commit_every" in options
    options["commit_every"] = records


def small_map(most_bytes: int) -> None:
    """Have the LMDB store hold no more than that. Call it before `watch`."""
    assert len(LmdbStore.__init__.__defaults__ or ()) == 1
    LmdbStore.__init__.__defaults__ = (most_bytes,)
