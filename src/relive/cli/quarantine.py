"""Commands about events that could not be folded: quarantine list, show, retry."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from relive.cli.event_json import event_from_json, event_to_json
from relive.cli.moment import parsed_place
from relive.cli.options import AsJson, OtherLog
from relive.cli.output import print_result, to_json
from relive.cli.target import Place, folded, parsed_target
from relive.consumers.quarantine import SetAside, quarantine, refusal, retry_record
from relive.errors import InvalidConfig, InvalidExperience, InvalidQuery
from relive.log import NewRecord, open_log

quarantine_app = typer.Typer(
    help="Events that could not be folded, and appending them again.", no_args_is_help=True
)

Buffer = Annotated[
    str, typer.Argument(metavar="TARGET", help="the directory of a buffer, or a log URL")
]
Position = Annotated[
    str, typer.Argument(metavar="POSITION", help="as listed: POSITION or PARTITION:POSITION")
]


@quarantine_app.command("list")
def list_all(target: Buffer, log: OtherLog = None, as_json: AsJson = False) -> None:
    """What is in quarantine. A record stays there; `retried` says that it was appended again.

    Example: relive quarantine list ./buffer
    """
    with folded(_place(target, log)) as (past, materializer, _):
        found = [_listed(record) for record in quarantine(past, materializer.states)]
    text = "\n".join(map(_line, found))
    print_result(as_json, {"records": found}, text or "nothing is in quarantine")


@quarantine_app.command("show")
def show(target: Buffer, position: Position, log: OtherLog = None, as_json: AsJson = False) -> None:
    """One record in quarantine with its content, in the form that `retry --file` takes.

    Example: relive quarantine show ./buffer 120
    """
    with folded(_place(target, log)) as (past, materializer, _):
        record = _at(quarantine(past, materializer.states), position)
    shown = _listed(record) | {
        "event": None if record.event is None else event_to_json(record.event),
        "raw": base64.b64encode(record.raw).decode(),
    }
    text = "\n".join(
        f"{name:15}{value if isinstance(value, str) else to_json(value)}"
        for name, value in shown.items()
    )
    print_result(as_json, shown, text)


@quarantine_app.command("retry")
def retry(
    target: Buffer,
    position: Position,
    file: Annotated[
        str | None,
        typer.Option(help="JSON of the repaired event, as `show --json` has it; - for stdin"),
    ] = None,
    log: OtherLog = None,
    as_json: AsJson = False,
) -> None:
    """Append the event again, at the log's end, as it is or repaired.

    It is tried against the present state first: what would be set aside again is not appended.

    Example: relive quarantine retry ./buffer 120 --file repaired.json
    """
    place = _place(target, log)
    with folded(place) as (past, materializer, store):
        record = _at(quarantine(past, materializer.states), position)
        again = _again(record, file, past.partitions)
        reason = refusal(store, again, past.partitions)
    if reason is not None:
        raise InvalidExperience("event", position, f"would be set aside again: {reason}")
    event_log = open_log(place.log)
    try:
        (appended,) = event_log.append([again])
    finally:
        event_log.close()
    print_result(
        as_json,
        {
            "partition": record.partition,
            "position": record.position,
            "retried_at": {"partition": again.partition, "position": appended},
        },
        f"{record.partition}:{record.position} appended again at {again.partition}:{appended}",
    )


def _again(record: SetAside, file: str | None, partitions: int) -> NewRecord:
    if record.retried:
        raise InvalidQuery(
            "position", record.position, "was retried already; publish a correction as a new event"
        )
    event = record.event if file is None else event_from_json(_read(file))
    if event is None:
        raise InvalidQuery(
            "position", record.position, f"is no event ({record.reason}); give one with --file"
        )
    return retry_record(record, event, partitions)


def _at(records: Iterable[SetAside], position: str) -> SetAside:
    place = parsed_place(position)
    for record in records:
        if (record.partition, record.position) == place:
            return record
    raise InvalidQuery("position", position, "is not in quarantine; see relive quarantine list")


def _line(listed: dict[str, Any]) -> str:
    parts = [
        f"{listed['partition']}:{listed['position']}",
        listed["type"] or "no event",
        listed["experience_id"] or "-",
    ]
    if live_at := listed["live_at"]:
        parts.append(f"(live since {live_at['partition']}:{live_at['position']})")
    if listed["retried"]:
        parts.append("retried")
    return "  ".join([*parts, listed["reason"]])


def _listed(record: SetAside) -> dict[str, Any]:
    live_at = record.live_at
    return {
        "partition": record.partition,
        "position": record.position,
        "reason": record.reason,
        "type": None if record.event is None else type(record.event).__name__,
        "experience_id": record.experience_id,
        "live_at": None if live_at is None else {"partition": live_at[0], "position": live_at[1]},
        "retried": record.retried,
    }


def _place(target: str, log: str | None) -> Place:
    place = parsed_target(target, log)
    if isinstance(place, str):
        raise InvalidConfig(
            "target", target, "the quarantine is read from the log; give its URL, or a directory"
        )
    return place


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidQuery("file", file, f"cannot be read: {error}") from error
