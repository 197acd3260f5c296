"""Commands about snapshots, and about the log that they make dispensable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from relive.cli.kept_state import kept_state
from relive.cli.options import AsJson, ConfigFile, LogUrl, StatePath
from relive.cli.output import print_result
from relive.cli.progress import progress, stages
from relive.config import BufferConfig
from relive.consumers import Snapshot, Snapshots, open_store
from relive.consumers.committed import last_committed
from relive.consumers.progress import Progress
from relive.consumers.retention import all_but_the_last, bounds_of, check_recoverable, trim
from relive.consumers.snapshot_check import check_snapshot
from relive.core.results import Positions
from relive.errors import InvalidConfig, SnapshotUnsound, StoreError
from relive.log import open_log

snapshot_app = typer.Typer(help="Take, list and verify snapshots.", no_args_is_help=True)

_POSITIONS = re.compile(r"(\d{1,5}:)?\d{1,18}(,\d{1,5}:\d{1,18})*")


@snapshot_app.command("create")
def create(
    log: LogUrl, path: StatePath = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Bring the state up to the log's end, and take a snapshot of it.

    A running buffer or service takes snapshots by itself, and owns its state meanwhile.

    Example: relive snapshot create --log file:./buffer --path ./buffer
    """
    settings = BufferConfig.load(config)
    event_log = open_log(log, kafka=settings.kafka)
    try:
        with (
            kept_state(event_log, path or settings.persistence_path, settings) as (_, snapshotter),
            _shown("taking a snapshot") as told,
        ):
            taken = snapshotter.take(progress=told)
    finally:
        event_log.close()
    print_result(as_json, _described(taken), f"{taken.path}: {_in_words(taken)}")


@snapshot_app.command("list")
def list_all(path: StatePath = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """The snapshots there are, newest first. Files are not read; `verify` does.

    Example: relive snapshot list --path ./buffer
    """
    result, lines = [], []
    for found in _snapshots(path, config).found():
        if isinstance(found, Snapshot):
            result.append(_described(found))
            lines.append(f"{found.path}: {_in_words(found)}")
        else:
            unreadable, problem = found
            result.append({"path": str(unreadable), "problem": str(problem)})
            lines.append(f"{unreadable}: {problem}")
    print_result(as_json, {"snapshots": result}, "\n".join(lines) or "there are no snapshots")


@snapshot_app.command("verify")
def verify(path: StatePath = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Read all of every snapshot; exit code 1 if one is not what its manifest says.

    Example: relive snapshot verify --path ./buffer
    """
    snapshots = _snapshots(path, config)
    result: list[dict[str, Any]] = []
    lines = []
    all_found = list(snapshots.found())
    with progress("verifying snapshots", len(all_found), lambda: len(result)):
        for found in all_found:
            place = found.path if isinstance(found, Snapshot) else found[0]
            problem = _problem(snapshots, found)
            result.append({"path": str(place), "sound": problem is None, "problem": problem})
            lines.append(f"{place}: {problem or 'sound'}")
    print_result(as_json, {"snapshots": result}, "\n".join(lines) or "there are no snapshots")
    if not all(each["sound"] for each in result):
        raise typer.Exit(1)


def trim_log(
    url: Annotated[str, typer.Argument(help="file:DIRECTORY or kafka://HOST:PORT/TOPIC")],
    path: StatePath = None,
    before: Annotated[
        str | None, typer.Option(metavar="POSITION", help="120, or 0:120,1:98 by partition")
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=0, help="records of each partition that stay")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove the log's beginning for good, up to what the oldest snapshot still needs.

    Machines that read the log need snapshots of their own, or a snapshot_path that they share.

    Example: relive log trim file:./buffer --path ./buffer --keep 1000
    """
    settings = BufferConfig.load(config)
    directory = path or settings.persistence_path
    if (before is None) is (keep is None):
        raise InvalidConfig("before, keep", (before, keep), "give one of them")
    event_log = open_log(url, kafka=settings.kafka)
    try:
        snapshots = Snapshots(settings.snapshot_options(directory).directory)
        bounds = bounds_of(event_log)
        wanted = _positions(before, bounds) if before else all_but_the_last(bounds, keep or 0)
        check_recoverable(event_log, snapshots)
        kept = [snapshot.positions for snapshot in snapshots.readable(event_log.identity())]
        committed = _committed(directory, settings)
        with _shown("trimming the log") as told:
            trimmed = trim(event_log, wanted, kept, committed, told)
        after = bounds_of(event_log)
    finally:
        event_log.close()
    removed = sum(after[p].first - bound.first for p, bound in bounds.items())
    first = {partition: bound.first for partition, bound in after.items()}
    said = f"{removed} positions removed, the log begins at {first} now"
    if not trimmed:
        oldest = {p: min(each[p] for each in kept) for p in bounds}
        said = f"nothing removed: the log begins at {first}, the oldest snapshot is at {oldest}"
    print_result(as_json, {"log": url, "removed": removed, "first": first}, said)


@contextmanager
def _shown(what: str) -> Iterator[Progress]:
    """What is to be told how far the body is, which is shown."""
    told = Progress(what)
    with stages(lambda: told.now):
        yield told


def _snapshots(path: Path | None, config: Path | None) -> Snapshots:
    settings = BufferConfig.load(config)
    return Snapshots(settings.snapshot_options(path or settings.persistence_path).directory)


def _described(snapshot: Snapshot) -> dict[str, Any]:
    manifest = snapshot.manifest
    return {
        "path": str(snapshot.path),
        "log": manifest.state.log,
        "positions": dict(snapshot.positions),
        "digest": snapshot.digest,
        "size": manifest.state.counts.get("size"),
        "bytes": snapshot.size_bytes,
        "created_at": manifest.created_at,
        "store": manifest.store,
        "relive": manifest.relive,
    }


def _in_words(snapshot: Snapshot) -> str:
    said = _described(snapshot)
    return (
        f"{said['size']} experiences, digest {said['digest']}, positions {said['positions']}, "
        f"{said['bytes']} bytes, {said['created_at']}"
    )


def _problem(snapshots: Snapshots, found: Snapshot | tuple[Path, SnapshotUnsound]) -> str | None:
    if not isinstance(found, Snapshot):
        return str(found[1])
    try:
        check_snapshot(snapshots, found)
    except SnapshotUnsound as problem:
        return str(problem)
    return None


def _positions(text: str, partitions: Mapping[int, object]) -> dict[int, int]:
    if not _POSITIONS.fullmatch(text) or (":" not in text and len(partitions) > 1):
        raise InvalidConfig("before", text, "must be POSITION, or PARTITION:POSITION,…")
    pairs = [part.split(":") if ":" in part else ("0", part) for part in text.split(",")]
    positions = {int(partition): int(position) for partition, position in pairs}
    for partition in positions.keys() - partitions.keys():
        raise InvalidConfig("before", partition, f"the log has {len(partitions)} partitions")
    return positions


def _committed(directory: Path, settings: BufferConfig) -> Positions | None:
    """Where the store is; None where nobody can tell.

    The owner of a store in use is past every snapshot that it took, and a damaged store is made
    anew from a snapshot.
    """
    if not (directory / "state").exists():
        return None
    try:
        store = open_store(directory / "state", settings.persistence_backend)
    except StoreError:
        return None
    try:
        committed = last_committed(store)
    except StoreError:
        return None
    finally:
        store.close()
    return None if committed is None else committed.positions
