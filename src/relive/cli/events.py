"""Commands about single events: tail, publish."""

from __future__ import annotations

import base64
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from relive.cli.event_json import event_to_json
from relive.cli.experience_json import experience_from_json
from relive.cli.moment import parsed_moment
from relive.cli.options import AsJson, LogArgument
from relive.cli.output import print_result, to_json
from relive.cli.stopping import stop_signal
from relive.cli.target import log_url
from relive.consumers.time_travel import microseconds, positions_at
from relive.core.experience import Experience
from relive.core.results import Token
from relive.errors import InvalidQuery, ReliveError, UndecodableEvent
from relive.log import EventLog, Record, log_now, open_log
from relive.log.prefix import batches
from relive.producers import Composer, Publisher
from relive.producers.publisher import DELIVERY_TIMEOUT_S
from relive.schemas import decode

_FOLLOW_WAIT_S = 0.2
_MAX_UNDER_WAY = 1_000
_NOT_SUMMARISED = ("time", "partition", "position", "type", "event_id", "event_time_us", "raw")


def tail(
    log: LogArgument,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="POSITION|TIME",
            help="120, or 0:120 (only these partitions), or a time as for --at of other commands",
        ),
    ] = None,
    last: Annotated[
        int, typer.Option("-n", min=0, help="how many of each partition, without --from")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on with what comes, until Ctrl-C")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The events of a log, in the order of each partition; with --json one object a line.

    Example: relive tail ./buffer --from 120 --follow --json
    """
    event_log = open_log(log_url(log))
    try:
        positions = _start(event_log, start, last)
        for records in batches(log_now(event_log), positions):
            _print_records(records, positions, as_json)
        if follow:
            stop = stop_signal(signal.SIGINT)
            while not stop.is_set():
                records = event_log.read(positions, wait_s=_FOLLOW_WAIT_S)
                _print_records(records, positions, as_json)
            raise KeyboardInterrupt
    finally:
        event_log.close()


def publish(
    log: LogArgument,
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl|-", help="- for standard input")],
    as_json: AsJson = False,
) -> None:
    """Record experiences from JSON lines: the fields of Experience, embeddings as arrays.

    Every line of a file is checked before the first is recorded. Lines from standard input are
    recorded as they come. A line that is recorded already, with its id, changes nothing.

    Example: echo '{"id": "x1", "visual": [0.1, 0.2]}' | relive publish ./buffer -
    """
    with Publisher(log_url(log)) as publisher:
        if file != "-":
            for _ in _experiences(file):
                pass
        published = _publish(publisher, _experiences(file))
    print_result(as_json, {"log": log, "published": published}, f"{published} published")


def _start(log: EventLog, start: str | None, last: int) -> dict[int, int]:
    partitions = range(log.partitions)
    if start is None:
        bounds = {partition: log.bounds(partition) for partition in partitions}
        return {p: max(b.first, b.end - last) for p, b in bounds.items()}
    moment = parsed_moment("from", start)
    if isinstance(moment, datetime):
        time_us = microseconds(moment)
        return {partition: log.position_at(partition, time_us) for partition in partitions}
    if isinstance(moment, Mapping):
        for partition in moment:
            if partition not in partitions:
                raise InvalidQuery("partition", partition, f"the log has {log.partitions}")
        return dict(moment)
    return positions_at(log, moment)


def _print_records(records: list[Record], positions: dict[int, int], as_json: bool) -> None:
    """Print records, and note the positions after them."""
    for record in records:
        found = _record_to_json(record)
        sys.stdout.write((to_json(found) if as_json else _summary(found)) + "\n")
        positions[record.partition] = record.position + 1
    sys.stdout.flush()


def _record_to_json(record: Record) -> dict[str, Any]:
    place = {
        "partition": record.partition,
        "position": record.position,
        "time": datetime.fromtimestamp(record.time_us / 1e6, UTC).isoformat(),
    }
    try:
        return place | event_to_json(decode(record.value))
    except UndecodableEvent as error:
        raw = base64.b64encode(record.value).decode()
        return place | {"type": None, "problem": str(error), "raw": raw}


def _summary(found: dict[str, Any]) -> str:
    parts = [
        found["time"],
        f"{found['partition']}:{found['position']}",
        found["type"] or "NO EVENT",
    ]
    for name, value in found.items():
        if name in _NOT_SUMMARISED or value in (None, "", [], {}):
            continue
        if name in ("visual", "text") and isinstance(value, list):
            value = f"{len(value)} dimensions"
        parts.append(f"{name}={value if isinstance(value, str) else to_json(value)}")
    return " ".join(" ".join(parts).split())


def _publish(publisher: Publisher, experiences: Iterable[tuple[int, Experience]]) -> int:
    """Publish them all, and wait until they are durable; returns how many they were."""
    under_way: deque[tuple[int, Future[Token]]] = deque()
    published = 0
    for number, experience in experiences:
        with _naming_line(number):
            under_way.append((number, publisher.publish(experience)))
        published += 1
        if len(under_way) > _MAX_UNDER_WAY:
            _settle(*under_way.popleft())
    while under_way:
        _settle(*under_way.popleft())
    return published


def _settle(number: int, future: Future[Token]) -> None:
    with _naming_line(number):
        future.result(DELIVERY_TIMEOUT_S)


def _experiences(file: str) -> Iterator[tuple[int, Experience]]:
    """The experiences in a file, each checked, with the number of its line."""
    composer = Composer()
    with _lines(file) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                with _naming_line(number):
                    experience = experience_from_json(line)
                    composer.experience(experience)
                yield number, experience


@contextmanager
def _lines(file: str) -> Iterator[Iterable[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        lines = Path(file).open("rb")  # noqa: SIM115 - what follows is not to be caught here
    except OSError as error:
        raise InvalidQuery("file", file, f"cannot be read: {error}") from error
    with lines:
        yield lines


@contextmanager
def _naming_line(number: int) -> Iterator[None]:
    try:
        yield
    except ReliveError as error:
        error.args = (f"line {number}: {error}",)
        raise
