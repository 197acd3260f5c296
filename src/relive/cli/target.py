"""TARGET as it is typed: an index service, the directory of a buffer, or a log; and reading it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from relive.cli.moment import parsed_moment
from relive.cli.options import Flags
from relive.cli.progress import progress
from relive.client import Client
from relive.config import BufferConfig
from relive.consumers import (
    Materializer,
    MemoryStore,
    OverlayStore,
    Snapshots,
    StateStore,
    log_at,
    open_kept_store,
    replay,
    state_before_end,
)
from relive.consumers.time_travel import REPLAY_TIMEOUT_S
from relive.core.state import PartitionState
from relive.core.tail import Tail
from relive.errors import InvalidConfig, StoreDamaged, StoreInUse
from relive.index_service import Engine
from relive.index_service.sampling_limits import SamplingLimits
from relive.log import LogPrefix, log_now, open_log

_ONE_ADDRESS = r"(\[[0-9a-fA-F:]+\]|[^/:,\s]+):[0-9]{1,5}"
_ADDRESSES = re.compile(f"{_ONE_ADDRESS}(,{_ONE_ADDRESS})*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer is.

    Attributes:
        log: URL of its log.
        state: directory of its state, which need not be there; None for none.
    """

    log: str
    state: Path | None


# The methods that both have are the same: get, search, sample, stats.
Reads: TypeAlias = Engine | Client


def parsed_target(target: str, log: str | None = None) -> str | Place:
    """HOST:PORT of a service, or of several with commas between, or where a buffer is.

    Args:
        target: as it was typed.
        log: URL of the log, where it is not in the directory.

    Raises:
        InvalidConfig: it is neither.
    """
    if target.startswith("kafka:"):
        if log is not None:
            raise InvalidConfig("log", log, f"the target {target} is a log already")
        return Place(target, None)
    directory = target.removeprefix("file:")
    if Path(directory).is_dir():
        return Place(log or f"file:{directory}", Path(directory) / "state")
    if _ADDRESSES.fullmatch(target) and target == directory:
        return target
    raise InvalidConfig(
        "target",
        target,
        "there is no such directory; give HOST:PORT of an index service, the directory of a "
        "buffer, or a log URL",
    )


def log_url(target: str) -> str:
    """The URL of the log that a directory or a URL names."""
    return f"file:{target}" if Path(target).is_dir() else target


def place_of_log(url: str) -> Place:
    """Where the buffer of an existing log is; a log in a directory has its state beside it."""
    directory = url.removeprefix("file:")
    return Place(url, None if directory == url else Path(directory) / "state")


@contextmanager
def reading(
    target: str, log: str | None, at: str | None, config: Path | None, flags: Flags
) -> Iterator[Reads]:
    """The reads of a target, now or as of a moment. An embedded one is left as it is.

    Args:
        target: as it was typed.
        log: URL of the log, where it is not in the directory.
        at: the moment, as it was typed.
        config: a TOML file.
        flags: settings that come before it.

    Raises:
        InvalidConfig: the target is none, or a service was asked about the past.
        InvalidQuery: no such moment.
        LogMissing, LogGap, LogUnavailable, StoreError: it cannot be read.
    """
    place = parsed_target(target, log)
    if isinstance(place, str):
        if at is not None:
            raise InvalidConfig("at", at, f"the service {place} answers as of now; ask its log")
        with Client(place, BufferConfig.load(config, **flags)) as client:
            yield client
        return
    # This version searches on the CPU, and need not say so for every look.
    options = BufferConfig.load(config, faiss_backend="cpu").index_options()
    options = replace(options, record_retrievals=False, limits=SamplingLimits())
    with opened(place, at, config) as (past, store):
        engine = Engine(past, store, options, poison_limit=sys.maxsize)
        try:
            with replaying(past, engine.positions()):
                engine.catch_up(timeout_s=REPLAY_TIMEOUT_S)
            yield engine
        finally:
            engine.close()


@contextmanager
def folded(place: Place) -> Iterator[tuple[LogPrefix, Materializer, StateStore]]:
    """A buffer's log up to now, its state, and a store that holds the state, committed."""
    with opened(place) as (past, store):
        materializer = replay_shown(past, store)
        try:
            materializer.commit()
            yield past, materializer, store
        finally:
            materializer.close()


@contextmanager
def opened(
    place: Place, at: str | None = None, config: Path | None = None
) -> Iterator[tuple[LogPrefix, StateStore]]:
    """A buffer's log up to now or a moment, and a store with a state to start from.

    The store is the caller's to close. Nothing that is done with it changes the kept state.
    """
    # What is in quarantine is listed by `relive quarantine`, not told again by every look.
    logging.getLogger("relive.consumers").setLevel(logging.ERROR)
    event_log = open_log(place.log, kafka=BufferConfig.load(config).kafka)
    try:
        past = log_now(event_log) if at is None else log_at(event_log, parsed_moment("at", at))
        store = _kept_state(place.state) if at is None else None
        yield past, store or snapshot_state(place, past, config)
    finally:
        event_log.close()


def replay_shown(past: LogPrefix, store: StateStore, what: str = "replaying") -> Materializer:
    """As `relive.consumers.replay`, with a progress bar."""
    partitions = range(past.partitions)
    start = {p: PartitionState(Tail(store), p, past.partitions).position for p in partitions}
    with replaying(past, start, what):
        return replay(past, store)


@contextmanager
def replaying(past: LogPrefix, start: dict[int, int], what: str = "replaying") -> Iterator[None]:
    """Shows how much of a log is read from now on, starting at some positions."""
    before = past.handed_out
    bounds = {partition: past.bounds(partition) for partition in range(past.partitions)}
    total = sum(b.end - max(b.first, start.get(p, 0)) for p, b in bounds.items())
    with progress(what, total, lambda: past.handed_out - before):
        yield


def snapshot_state(
    place: Place, past: LogPrefix, config: Path | None = None, *, oldest: bool = False
) -> StateStore:
    """A state in memory to start replaying from: of a snapshot, or none."""
    directory = BufferConfig.load(config).snapshot_path
    if directory is None and place.state is not None:
        directory = place.state.parent / "snapshots"
    if directory is None:
        return MemoryStore()
    return state_before_end(Snapshots(directory), past, oldest=oldest)


def _kept_state(directory: Path | None) -> StateStore | None:
    """The kept state; None where there is none to read.

    Log and snapshots are all that processes share: where another one owns the state, this one folds
    for itself, as it does where the state is damaged.
    """
    if directory is None:
        return None
    try:
        kept = open_kept_store(directory)
    except (StoreInUse, StoreDamaged):
        return None
    return None if kept is None else OverlayStore(kept)
