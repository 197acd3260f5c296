"""Trying out what a machine has."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from relive.cli.options import AsJson
from relive.cli.output import print_result
from relive.errors import InvalidConfig
from relive.index_service import GpuOptions
from relive.index_service.builder import FEWEST_ROWS
from relive.index_service.gpu_checks import Verdict, check_gpu


def doctor(
    gpu: Annotated[bool, typer.Option("--gpu", help="try out the GPU")] = False,
    device: Annotated[
        str, typer.Option(metavar="gpu|cpu", help="cpu: try out the worker without a GPU")
    ] = "gpu",
    rows: Annotated[int, typer.Option(min=2 * FEWEST_ROWS, help="rows that are made up")] = 20_000,
    as_json: AsJson = False,
) -> None:
    """Does searching on this machine's GPU work? Exit code 1 if not.

    Has a worker search rows that are made up, compares its answers with brute force, measures how
    long they take, kills and stops the worker in the middle of searches, and sees it come back.

    Example: relive doctor --gpu
    """
    if not gpu:
        raise InvalidConfig("gpu", gpu, "say what to try out: --gpu")
    if device not in ("gpu", "cpu"):
        raise InvalidConfig("device", device, "must be gpu or cpu")
    with TemporaryDirectory(prefix="relive-doctor-") as directory:
        found = check_gpu(Path(directory), GpuOptions(device=device, pause_s=0.1), rows)
    print_result(as_json, asdict(found), _in_words(found))
    if found.verdict != "ok":
        raise typer.Exit(1)


def _in_words(found: Verdict) -> str:
    lines = [f"{'ok ' if c.ok else 'NOT'}  {c.name:10}{c.says}" for c in found.checks]
    return "\n".join([*lines, f"verdict: {found.verdict}"])
