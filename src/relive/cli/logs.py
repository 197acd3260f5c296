"""Commands about logs as such: log create, log info, log check, log copy."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relive.cli.options import AsJson, ConfigFile, LogArgument, StatePath
from relive.cli.output import print_result
from relive.cli.progress import progress
from relive.cli.target import log_url, place_of_log, replay_shown
from relive.config import BufferConfig
from relive.consumers import Materializer, MemoryStore, Snapshots
from relive.consumers.retention import kept_by_snapshots
from relive.core.settings import EvictionPolicy
from relive.errors import InvalidConfig, LogMissing, LogsDiffer
from relive.log import Bounds, EventLog, LogPrefix, log_now, open_log
from relive.log.check import check_place
from relive.log.copy import copy_log
from relive.log.findings import loses
from relive.log.kafka_options import KafkaOptions
from relive.producers.compose import Composer

_log = logging.getLogger(__name__)

log_app = typer.Typer(help="Make, look at and copy event logs.", no_args_is_help=True)


@log_app.command("create")
def create(
    url: Annotated[str, typer.Argument(help="file:DIRECTORY or kafka://HOST:PORT/TOPIC")],
    partitions: Annotated[int, typer.Option(min=1, help="fixed for ever")] = 1,
    replication: Annotated[int, typer.Option(min=1, help="copies of each record (Kafka)")] = 1,
    capacity: Annotated[int | None, typer.Option(help="experiences kept")] = None,
    visual_dim: Annotated[int | None, typer.Option(help="dimension of visual embeddings")] = None,
    text_dim: Annotated[int | None, typer.Option(help="dimension of text embeddings")] = None,
    eviction_policy: Annotated[
        EvictionPolicy | None,
        typer.Option(metavar="|".join(EvictionPolicy), help="which give way beyond capacity"),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a log and put settings in force. Safe to run again.

    Example: relive log create kafka://localhost:9092/experiences --partitions 4 --visual-dim 512
    """
    flags = {
        "capacity": capacity,
        "visual_dim": visual_dim,
        "text_dim": text_dim,
        "eviction_policy": eviction_policy,
    }
    settings = BufferConfig.load(config, **{n: v for n, v in flags.items() if v is not None})
    if partitions > 1 and settings.visual_dim is None and settings.text_dim is None:
        raise InvalidConfig(
            "visual_dim, text_dim",
            None,
            "a log of several partitions needs at least one: each partition would let its own "
            "first experience decide",
        )
    event_log = open_log(
        url, create=True, partitions=partitions, replication=replication, kafka=settings.kafka
    )
    try:
        result = {
            "log": url,
            "identity": event_log.identity(),
            "partitions": event_log.partitions,
            "changed": _put_in_force(settings, event_log),
        }
    finally:
        event_log.close()
    print_result(as_json, result, f"{url}: {result['partitions']} partitions, {result['identity']}")


@log_app.command("info")
def info(log: LogArgument, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """What a log is, and from where to where it can be read.

    Example: relive log info kafka://localhost:9092/experiences
    """
    url = log_url(log)
    event_log = open_log(url, kafka=BufferConfig.load(config).kafka)
    try:
        result: dict[str, Any] = {
            "log": url,
            "identity": event_log.identity(),
            "partitions": [_partition(event_log, p) for p in range(event_log.partitions)],
        }
    finally:
        event_log.close()
    lines = [f"{url}: {result['identity']}"]
    for found in result["partitions"]:
        lines.append(
            f"partition {found['partition']}: positions {found['first']} to {found['end']}, "
            f"appended {found['first_time'] or '-'} to {found['last_time'] or '-'}"
        )
    print_result(as_json, result, "\n".join(lines))


@log_app.command("check")
def check(
    log: LogArgument,
    path: StatePath = None,
    capacity: Annotated[
        int | None, typer.Option(min=1, help="experiences kept; default: the log's own")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Does the place of a log keep what is written to it? Exit code 1 if it loses events.

    Looks at a topic's settings and replicas and at the schema registry, and whether snapshots hold
    what was removed from the log's beginning. Changes nothing.

    Example: relive log check kafka://localhost:9092/experiences --path ./state
    """
    url, settings = log_url(log), BufferConfig.load(config)
    findings = check_place(url, capacity=capacity, kafka=settings.kafka)
    place = place_of_log(url).state
    directory = path or (settings.persistence_path if place is None else place.parent)
    if not loses(findings):
        with closing(open_log(url, kafka=settings.kafka)) as opened:
            snapshots = Snapshots(settings.snapshot_options(directory).directory)
            findings.append(kept_by_snapshots(opened, snapshots))
    lines = [f"{f.verdict:<6} {f.about} {f.value}: {f.says}" for f in findings]
    ways_out = [f"{f.about}: {f.do}" for f in findings if f.do]
    print_result(
        as_json,
        {
            "log": url,
            "loses_events": loses(findings),
            "findings": [asdict(finding) for finding in findings],
        },
        "\n".join([*lines, *(["", "to do:", *ways_out] if ways_out else [])]),
    )
    if loses(findings):
        raise typer.Exit(1)


@log_app.command("copy")
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="a log URL, or a directory")],
    target: Annotated[str, typer.Argument(metavar="TO", help="a log URL; made if missing")],
    replication: Annotated[int, typer.Option(min=1, help="copies of each record (Kafka)")] = 1,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy a log to another backend, and check that it gives the same state.

    Run again after an interruption, it goes on where it ended. Stop whoever writes to FROM first,
    or run it once more afterwards.

    Example: relive log copy file:./buffer kafka://localhost:9092/experiences
    """
    kafka = BufferConfig.load(config).kafka
    from_log = open_log(log_url(source), kafka=kafka)
    try:
        past = log_now(from_log)
        to_log = _open_or_create(target, past.partitions, replication, kafka)
        try:
            with progress("copying", _positions(past), lambda: past.handed_out):
                copied = copy_log(past, to_log)
            digest = _digest(past, "checking the source")
            copy_digest = _digest(log_now(to_log), "checking the copy")
        finally:
            to_log.close()
    finally:
        from_log.close()
    if digest != copy_digest:
        raise LogsDiffer(
            f"the copy gives a state with digest {copy_digest}, the source {digest}: did somebody "
            "else write to the copy? Copy into a new log"
        )
    result = {
        "from": source,
        "to": target,
        "partitions": past.partitions,
        "found": copied.found,
        "appended": copied.appended,
        "digest": digest,
    }
    print_result(
        as_json,
        result,
        f"{copied.appended} records copied, {copied.found} were there; both give digest {digest}",
    )


def _put_in_force(config: BufferConfig, log: EventLog) -> bool:
    """Whether the log had other settings, or none."""
    if any(log.bounds(partition).first for partition in range(log.partitions)):
        _log.warning("the log's beginning was removed: its settings stay as they are")
        return False
    materializer = Materializer(log_now(log), MemoryStore())
    materializer.catch_up()
    known = materializer.states[0].settings if any(materializer.positions().values()) else None
    materializer.close()
    wanted = config.settings(log.partitions, known)
    if wanted != known:
        log.append(Composer().settings_records(wanted, log.partitions, "relive log create"))
    return wanted != known


def _partition(log: EventLog, partition: int) -> dict[str, Any]:
    bounds = log.bounds(partition)
    return {
        "partition": partition,
        "first": bounds.first,
        "end": bounds.end,
        "first_time": _time_at(log, partition, bounds, bounds.first),
        "last_time": _time_at(log, partition, bounds, bounds.end - 1),
    }


def _time_at(log: EventLog, partition: int, bounds: Bounds, position: int) -> str | None:
    """When the first record at or after a position was appended; None if there is none."""
    if bounds.first == bounds.end:
        return None
    records = log.read({partition: position}, max_records=1)
    if not records:
        return None
    return datetime.fromtimestamp(records[0].time_us / 1e6, UTC).isoformat()


def _open_or_create(url: str, partitions: int, replication: int, kafka: KafkaOptions) -> EventLog:
    try:
        return open_log(url, kafka=kafka)
    except LogMissing:
        return open_log(
            url, create=True, partitions=partitions, replication=replication, kafka=kafka
        )


def _positions(log: LogPrefix) -> int:
    bounds = [log.bounds(partition) for partition in range(log.partitions)]
    return sum(b.end - b.first for b in bounds)


def _digest(log: LogPrefix, what: str) -> str:
    materializer = replay_shown(log, MemoryStore(), what)
    try:
        return materializer.digest()
    finally:
        materializer.close()
