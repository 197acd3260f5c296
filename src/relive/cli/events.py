"""Commands about single events: tail, publish."""

from __future__ import annotations

import base64
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from relive.cli.event_json import event_to_json
from relive.cli.experience_json import experience_from_json
from relive.cli.moment import parsed_moment
from relive.cli.options import AsJson, LogArgument
from relive.cli.output import print_result, to_json, write_out
from relive.cli.progress import progress
from relive.cli.stdin_lines import stdin_lines
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
_LOOK_S = 0.2
# Of what was begun, once asked to stop.
_FINISH_S = 10.0
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
    recorded as they come. A line that is recorded already, with its id, changes nothing; so after
    Ctrl-C, which says how many are recorded, the same file can be published again.

    Example: echo '{"id": "x1", "visual": [0.1, 0.2]}' | relive publish ./buffer -
    """
    stop = stop_signal(signal.SIGINT)
    done = _Done()
    with Publisher(log_url(log)) as publisher:
        total = None if file == "-" else _checked(file, stop)
        with progress("publishing", total, lambda: done.published):
            _publish(publisher, _experiences(file, stop), done, stop)
    if stop.is_set():
        sys.stderr.write(f"interrupted: {done.published} published\n")
        raise KeyboardInterrupt
    published = done.published
    print_result(as_json, {"log": log, "published": published}, f"{published} published")


@dataclass(slots=True)
class _Done:
    """How many are durable."""

    published: int = 0


def _checked(file: str, stop: threading.Event) -> int:
    """Check every line of a file; returns how many experiences it has."""
    checked = _Done()
    with progress("checking", None, lambda: checked.published):
        for _ in _experiences(file, stop):
            checked.published += 1
    return checked.published


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
    lines = []
    for record in records:
        found = _record_to_json(record)
        lines.append((to_json(found) if as_json else _summary(found)) + "\n")
        positions[record.partition] = record.position + 1
    write_out("".join(lines))


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


def _publish(
    publisher: Publisher,
    experiences: Iterable[tuple[int, Experience]],
    done: _Done,
    stop: threading.Event,
) -> None:
    """Publish them until asked to stop, and wait until those that were begun are durable."""
    under_way: deque[tuple[int, Future[Token]]] = deque()
    for number, experience in experiences:
        with _naming_line(number):
            under_way.append((number, publisher.publish(experience)))
        if len(under_way) > _MAX_UNDER_WAY:
            _settle(*under_way.popleft(), stop)
            done.published += 1
    while under_way:
        _settle(*under_way.popleft(), stop)
        done.published += 1


def _settle(number: int, future: Future[Token], stop: threading.Event) -> None:
    ends = time.monotonic() + DELIVERY_TIMEOUT_S
    while not future.done() and time.monotonic() < ends:
        wait([future], _LOOK_S)
        if stop.is_set():
            # What was begun is finished, if the log is there.
            ends = min(ends, time.monotonic() + _FINISH_S)
    with _naming_line(number):
        future.result(0.0)


def _experiences(file: str, stop: threading.Event) -> Iterator[tuple[int, Experience]]:
    """The experiences in a file, each checked, with the number of its line; until asked to stop."""
    composer = Composer()
    with _lines(file, stop) as lines:
        for number, line in enumerate(lines, start=1):
            if stop.is_set():
                return
            if line.strip():
                with _naming_line(number):
                    experience = experience_from_json(line)
                    composer.experience(experience)
                yield number, experience


@contextmanager
def _lines(file: str, stop: threading.Event) -> Iterator[Iterable[bytes]]:
    if file == "-":
        yield stdin_lines(stop)
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
