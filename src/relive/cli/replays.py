"""Commands that replay the log: replay, verify."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from relive.cli.moment import parsed_moment
from relive.cli.options import AsJson, LogUrl, OtherLog, Target
from relive.cli.output import print_result, print_state
from relive.cli.reads import table
from relive.cli.target import (
    Place,
    parsed_target,
    place_of_log,
    replay_shown,
    replaying,
    snapshot_state,
)
from relive.client import Client
from relive.consumers import Materializer, MemoryStore, StateStore, log_at, open_kept_store
from relive.consumers.comparison import compare_states
from relive.core.settings import checked_settings
from relive.errors import InvalidConfig, StoreError, StoreInUse
from relive.index_service.sampler import Request
from relive.index_service.what_if import what_if
from relive.log import EventLog, LogPrefix, log_now, open_log
from relive.log.prefix import batches


def replay(
    log: LogUrl,
    to: Annotated[
        str | None,
        typer.Option(metavar="POSITION|TIME", help="stop there; as for --at of other commands"),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=NUMBER",
            help="print what a sample would draw under other priority settings: "
            "confidence_weight, reward_weight, age_weight, priority_floor, half_life_s; repeatable",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=0, help="of that sample: how many")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="of that sample")] = 0,
    now: Annotated[
        float | None,
        typer.Option(help="its time, seconds since the epoch; default: the present"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fold the log in memory, and print the state's digest, or what other settings would draw.

    It starts at the log's beginning, or, where that was trimmed, from the oldest snapshot. Two
    states are equal if and only if their digests are.

    Example: relive replay --log file:./buffer --to 120 --json
    Example: relive replay --log file:./buffer --compare half_life_s=3600 -n 20 --seed 7
    """
    event_log = open_log(log)
    try:
        past = log_now(event_log) if to is None else log_at(event_log, parsed_moment("to", to))
        materializer = replay_shown(past, _first_state(place_of_log(log), past))
        if compare:
            now_us = round(now * 1e6) if now is not None else time.time_ns() // 1_000
            _print_comparison(materializer, compare, Request(n, seed, now_us), as_json)
        else:
            print_state(materializer, "replayed", as_json)
        materializer.close()
    finally:
        event_log.close()


def verify(target: Target, log: OtherLog = None, as_json: AsJson = False) -> None:
    """Compare a kept state with a replay of the log, and check every record of the log.

    Exit code 1 if the state is not what the log says.

    Example: relive verify ./buffer
    """
    place = parsed_target(target, log)
    if isinstance(place, str):
        if log is None:
            raise InvalidConfig("log", None, f"name the log that {place} follows")
        with Client(place) as client:
            known = client.stats()
        event_log = open_log(log)
        try:
            report = _verify_service(
                event_log, place_of_log(log), dict(known.positions), known.digest
            )
        finally:
            event_log.close()
    else:
        if place.state is None or not place.state.is_dir():
            raise InvalidConfig(
                "target", target, "keeps no state; give a buffer's directory, or a service"
            )
        event_log = open_log(place.log)
        try:
            report = _verify_store(event_log, place, _owned(place.state))
        finally:
            event_log.close()
    print_result(as_json, report, _as_text(report))
    if not report["equal"]:
        raise typer.Exit(1)


def _print_comparison(
    materializer: Materializer, changes: list[str], request: Request, as_json: bool
) -> None:
    with materializer.locked() as states:
        settings = states[0].settings
        weights = settings.weights
        for change in changes:
            name, _, number = change.partition("=")
            if name not in _WEIGHTS:
                raise InvalidConfig("compare", change, f"SETTING=NUMBER with {', '.join(_WEIGHTS)}")
            try:
                weights = replace(weights, **{_WEIGHTS[name]: float(number)})
            except ValueError as error:
                raise InvalidConfig(name, number, "must be a number") from error
        checked_settings(replace(settings, weights=weights), len(states))
        items = [asdict(item) for item in what_if(states, weights, request)]
        result = {
            "positions": materializer.positions(),
            "now": request.now_us / 1e6,
            "seed": request.seed,
            "settings": asdict(settings.weights),
            "other_settings": asdict(weights),
            "items": items,
        }
    shown = [
        item | {name: "yes" if item[name] else "no" for name in ("drawn", "other_drawn")}
        for item in items
    ]
    columns = ("drawn", "other_drawn", "probability", "other_probability", "id")
    print_result(as_json, result, table(columns, shown))


_WEIGHTS = {
    "confidence_weight": "confidence",
    "reward_weight": "reward",
    "age_weight": "age",
    "priority_floor": "floor",
    "half_life_s": "half_life_s",
}


def _verify_service(
    log: EventLog, place: Place, positions: dict[int, int], digest: str
) -> dict[str, Any]:
    past = LogPrefix(log, positions)
    replayed = replay_shown(past, _first_state(place, past))
    found = replayed.digest()
    replayed.close()
    return {
        "equal": found == digest,
        "positions": positions,
        "kept": digest,
        "replayed": found,
        "partitions": [],
        "records": past.handed_out + _check_rest(log, positions),
    }


def _first_state(place: Place, past: LogPrefix) -> StateStore:
    """What a replay starts from: nothing, or the oldest snapshot where the log was trimmed."""
    if all(past.bounds(partition).first == 0 for partition in range(past.partitions)):
        return MemoryStore()
    return snapshot_state(place, past, oldest=True)


def _verify_store(log: EventLog, place: Place, store: StateStore) -> dict[str, Any]:
    kept = Materializer(log, store)
    try:
        positions = kept.positions()
        past = LogPrefix(log, positions)
        memory = _first_state(place, past)
        replayed = replay_shown(past, memory)
        replayed.commit()
        checks = compare_states(store, memory, log.partitions)
        return {
            "equal": all(check.equal for check in checks),
            "positions": positions,
            "kept": kept.digest(),
            "replayed": replayed.digest(),
            "partitions": [asdict(check) for check in checks],
            "records": past.handed_out + _check_rest(log, positions),
        }
    finally:
        kept.close()


def _check_rest(log: EventLog, positions: dict[int, int]) -> int:
    """Read what comes after the state, which checks its checksums; returns how many records."""
    rest = log_now(log)
    with replaying(rest, positions, "checking the rest of the log"):
        return sum(len(records) for records in batches(rest, positions))


def _owned(directory: Path) -> StateStore:
    try:
        store = open_kept_store(directory)
    except StoreInUse as error:
        raise StoreInUse(
            f"{error}: verify it when that process has ended, or ask the process itself "
            "(relive verify HOST:PORT --log URL)"
        ) from error
    if store is None:
        raise StoreError(f"there is no state in {directory}")
    return store


def _as_text(report: dict[str, Any]) -> str:
    lines = [
        f"partition {check['partition']} at {check['position']}: kept {check['kept']}, "
        f"replayed {check['replayed']}"
        + (f", differs in: {', '.join(check['differing'])}" if check["differing"] else "")
        for check in report["partitions"]
    ]
    verdict = "equal" if report["equal"] else "NOT equal: remove the state to have it rebuilt"
    return "\n".join(
        [
            *lines,
            f"state at {report['positions']}: kept {report['kept']}, "
            f"replayed {report['replayed']}: {verdict}",
            f"{report['records']} records of the log read, every checksum right",
        ]
    )
