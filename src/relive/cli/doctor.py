"""Looking at everything that a buffer depends on, and saying what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from relive.cli.diagnosis.finding import Finding, Status
from relive.cli.diagnosis.machine import look_at_clock, look_at_disk, look_at_files, look_at_gpu
from relive.cli.diagnosis.service import look_at_service
from relive.cli.diagnosis.settings import look_at_environment, look_at_settings
from relive.cli.diagnosis.stored import (
    LookedAtLog,
    look_at_index,
    look_at_snapshots,
    look_at_state,
    used_bytes,
)
from relive.cli.exit_codes import ExitCode
from relive.cli.options import AsJson, ConfigFile, OtherLog
from relive.cli.output import print_result
from relive.cli.progress import progress
from relive.cli.target import Place, parsed_target
from relive.config import BufferConfig
from relive.consumers import Snapshots
from relive.errors import InvalidConfig
from relive.index_service import GpuOptions
from relive.index_service.builder import FEWEST_ROWS
from relive.index_service.gpu_checks import Verdict, check_gpu


def doctor(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="a buffer's directory, a log URL, or HOST:PORT of services; without, only the "
            "machine and the configuration",
        ),
    ] = None,
    log: OtherLog = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="try out the GPU instead: answers, speed, kill -9")
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="gpu|cpu", help="cpu: try out the worker without a GPU")
    ] = "gpu",
    rows: Annotated[int, typer.Option(min=2 * FEWEST_ROWS, help="rows that are made up")] = 20_000,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Is everything as it should be, and what is to be done? Exit code 1 if something is not.

    Looks at configuration and environment, log and broker, state, snapshots, index, retention,
    permissions, clock, disks and GPU. Warnings leave the exit code at 0. Nothing is changed.

    With --gpu, has a worker search rows that are made up, compares its answers with brute force,
    measures how long they take, kills and stops it in the middle of searches, and sees it come
    back.

    Example: relive doctor ./buffer
    Example: relive doctor --gpu
    """
    if gpu:
        _try_gpu(device, rows, as_json)
        return
    # What makes no sense is said at once, before anything is looked at.
    place = None if target is None else parsed_target(target, log)
    findings: list[Finding] = []
    with progress("looking", None, lambda: len(findings)):
        for finding in _look(place, config):
            findings.append(finding)
    worst = max((_ORDER.index(each.status) for each in findings), default=0)
    verdict = _VERDICTS[_ORDER[worst]]
    print_result(
        as_json,
        {"verdict": verdict, "checks": [asdict(each) for each in findings]},
        "\n".join([*map(_line, findings), f"verdict: {verdict}"]),
    )
    if _ORDER[worst] is Status.PROBLEM:
        raise typer.Exit(ExitCode.FAILED)


_ORDER = (Status.OK, Status.NOT_USED, Status.WARNING, Status.PROBLEM)
_VERDICTS = {
    Status.OK: "ok",
    Status.NOT_USED: "ok",
    Status.WARNING: "ok, with warnings",
    Status.PROBLEM: "not ok",
}


def _look(place: Place | str | None, file: Path | None) -> Iterator[Finding]:
    yield from look_at_environment()
    config, findings = look_at_settings(file)
    yield from findings
    if config is None:
        return
    if isinstance(place, str):
        yield look_at_clock(None)
        yield from look_at_service(place, config)
        return
    yield look_at_gpu(config)
    if place is None:
        yield look_at_clock(None)
        yield from look_at_disk(config.persistence_path, 0)
        return
    yield from _look_at_buffer(place, config)


def _look_at_buffer(place: Place, config: BufferConfig) -> Iterator[Finding]:
    found = LookedAtLog(place.log)
    yield from found.findings
    directory = config.persistence_path if place.state is None else place.state.parent
    snapshots = Snapshots(config.snapshot_options(directory).directory)
    if place.state is not None:
        yield from look_at_state(place.state)
        yield look_at_index(place.state.parent / "index", found)
        yield look_at_files(place.state.parent)
    if place.state is not None or config.snapshot_path is not None:
        yield from look_at_snapshots(snapshots, found, config)
    yield look_at_clock(found.last_record_s)
    if place.state is not None:
        yield from look_at_disk(directory, used_bytes(place))
    if config.snapshot_path is not None:
        yield from look_at_disk(config.snapshot_path, used_bytes(place), "disk of snapshots")


def _line(finding: Finding) -> str:
    line = f"{finding.status.upper():9} {finding.name:14} {finding.says}"
    return f"{line}\n{'':25}do: {finding.do}" if finding.do else line


def _try_gpu(device: str, rows: int, as_json: bool) -> None:
    if device not in ("gpu", "cpu"):
        raise InvalidConfig("device", device, "must be gpu or cpu")
    with TemporaryDirectory(prefix="relive-doctor-") as directory:
        found = check_gpu(Path(directory), GpuOptions(device=device, pause_s=0.1), rows)
    print_result(as_json, asdict(found), _in_words(found))
    if found.verdict != "ok":
        raise typer.Exit(ExitCode.FAILED)


def _in_words(found: Verdict) -> str:
    lines = [f"{'ok ' if c.ok else 'NOT'}  {c.name:10}{c.says}" for c in found.checks]
    return "\n".join([*lines, f"verdict: {found.verdict}"])
