"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
        help="HOST:PORT of an index service, the directory of a buffer, or a log URL",
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
