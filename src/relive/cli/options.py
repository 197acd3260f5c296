"""Arguments and options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

LogUrl = Annotated[
    str, typer.Option("--log", help="file:DIRECTORY or kafka://HOST:PORT[,HOST:PORT…]/TOPIC")
]
LogArgument = Annotated[
    str, typer.Argument(metavar="LOG", help="a log URL, or the directory of an embedded buffer")
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="HOST:PORT[,HOST:PORT…] of index services, the directory of a buffer, or a log URL",
    ),
]
OtherLog = Annotated[
    str | None, typer.Option("--log", help="URL of the log, where it is not in the directory")
]
At = Annotated[
    str | None,
    typer.Option(
        metavar="POSITION|TIME",
        help="as of then: 120, or 0:120,1:98, or 2026-11-24T10:00 (local unless it has a zone), "
        "or @1732442400 (seconds since the epoch)",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object")]
StatePath = Annotated[
    Path | None, typer.Option("--path", help="directory of the state; default: persistence_path")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file; RELIVE_… variables come before it")
]
MetricsListen = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="serve metrics for Prometheus there, at /metrics"),
]
LogFormat = Annotated[
    str | None, typer.Option(metavar="text|json", help="of what is said on stderr")
]

# What search and sample may return; `relive.cli.filters` makes a filter of them.
_TIME = "2026-11-24T10:00 (local unless it has a zone), or @1732442400 (seconds since the epoch)"
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="metadata that it must have; VALUE is a JSON scalar, or else text. Several with one "
        "KEY: any of them; with several: all of them",
    ),
]
Since = Annotated[str | None, typer.Option(metavar="TIME", help=f"not before: {_TIME}")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="before then")]
MinReward = Annotated[float | None, typer.Option(help="least total reward")]
MaxReward = Annotated[float | None, typer.Option(help="greatest total reward")]
MinConfidence = Annotated[float | None, typer.Option(help="least model confidence, 0 to 1")]
MaxConfidence = Annotated[float | None, typer.Option(help="greatest model confidence, 0 to 1")]
MinSuccessRate = Annotated[
    float | None, typer.Option(help="least success rate, 0 to 1, with an outcome known")
]
MaxSuccessRate = Annotated[
    float | None, typer.Option(help="greatest success rate, 0 to 1, with an outcome known")
]

# Settings that were given as options, by name.
Flags: TypeAlias = Mapping[str, Any]

_WAY_IN = {
    "tls_ca": "use TLS, and trust services that these CAs signed (PEM)",
    "tls_client_certificate": "shown to the service (PEM)",
    "tls_client_key": "of that certificate (PEM)",
    "token_file": "holds the token; RELIVE_TOKEN does as well",
}


def way_in(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that asks services the options for getting in; it takes them as `flags`."""
    known = inspect.signature(command, eval_str=True)
    parameters = [p for p in known.parameters.values() if p.name != "flags"]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[Path | None, typer.Option(metavar="FILE", help=text)],
        )
        for name, text in _WAY_IN.items()
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        flags = {name: given.pop(name) for name in _WAY_IN}
        command(**given, flags={name: value for name, value in flags.items() if value is not None})

    # Before --json, which is the last of every command.
    run.__signature__ = known.replace(  # type: ignore[attr-defined]
        parameters=[*parameters[:-1], *added, parameters[-1]]
    )
    return run
