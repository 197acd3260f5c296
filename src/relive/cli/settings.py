"""The settings in force, which are in the log, and putting others in force."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from relive.cli.options import AsJson, LogArgument
from relive.cli.output import print_result
from relive.cli.target import log_url, place_of_log, replay_shown, snapshot_state
from relive.config import BufferConfig
from relive.core.settings import EvictionPolicy, Settings
from relive.errors import InvalidConfig
from relive.log import log_now, open_log
from relive.producers.compose import Composer


def settings(
    log: LogArgument,
    capacity: Annotated[int | None, typer.Option(help="experiences kept")] = None,
    eviction_policy: Annotated[
        EvictionPolicy | None,
        typer.Option(metavar="|".join(EvictionPolicy), help="which give way beyond capacity"),
    ] = None,
    confidence_weight: Annotated[
        float | None, typer.Option(help="of 1 - confidence, in the priority")
    ] = None,
    reward_weight: Annotated[float | None, typer.Option(help="of |reward|, in it")] = None,
    age_weight: Annotated[float | None, typer.Option(help="of the age, in it")] = None,
    priority_floor: Annotated[float | None, typer.Option(help="the least priority")] = None,
    half_life_s: Annotated[float | None, typer.Option(help="of the age, seconds")] = None,
    as_json: AsJson = False,
) -> None:
    """The settings in force; with options, put others in force, from the log's end on.

    Whoever follows the log does as it says from there on. What was evicted stays so.

    Example: relive settings ./buffer --capacity 20000
    """
    given = {
        "capacity": capacity,
        "eviction_policy": eviction_policy,
        "confidence_weight": confidence_weight,
        "reward_weight": reward_weight,
        "age_weight": age_weight,
        "priority_floor": priority_floor,
        "half_life_s": half_life_s,
    }
    flags = {name: value for name, value in given.items() if value is not None}
    url = log_url(log)
    event_log = open_log(url)
    try:
        past = log_now(event_log)
        materializer = replay_shown(past, snapshot_state(place_of_log(url), past))
        begun = any(materializer.positions().values())
        known = materializer.states[0].settings
        materializer.close()
        if not begun:
            raise InvalidConfig("log", log, "has no settings yet; relive log create puts some")
        wanted = known
        if flags:
            # Only what was typed: what the environment says is not meant for this log.
            wanted = _only(flags).settings(past.partitions, known)
        if wanted != known:
            event_log.append(
                Composer().settings_records(wanted, past.partitions, "relive settings")
            )
    finally:
        event_log.close()
    shown = _flat(wanted)
    print_result(
        as_json,
        {"settings": shown, "changed": wanted != known},
        "\n".join(f"{name:20}{'-' if value is None else value}" for name, value in shown.items()),
    )


def _only(flags: dict[str, Any]) -> BufferConfig:
    config = BufferConfig.load(None, **flags)
    return BufferConfig.model_construct(set(flags), **dict(config))


def _flat(found: Settings) -> dict[str, Any]:
    """As they are named in the configuration."""
    shown = asdict(found)
    weights = shown.pop("weights")
    names = {"floor": "priority_floor", "half_life_s": "half_life_s"}
    return shown | {names.get(name, f"{name}_weight"): value for name, value in weights.items()}
