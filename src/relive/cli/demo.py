"""The demo: run the agent, kill it, and show that nothing was lost."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relive.buffer import ExperienceBuffer
from relive.cli.digits import Step, config, scans
from relive.errors import ReliveError

# The curve shows the share of right answers among this many images.
_WINDOW = 100


class DemoFailed(ReliveError):
    """Raised when the demo's agent did not come to its end, or something was lost."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo measured.

    Attributes:
        experiences: recorded and acknowledged by the agent.
        accuracy_with_buffer, accuracy_without_buffer: over the whole stream.
        accuracy_last_500: with the buffer, at the end of it.
        recovered: acknowledged experiences that are there after the agent was killed.
        digest_equal: whether the recovered state is the one the agent had.
        search_ms_p50, search_ms_p99, add_ms_p50: as the agent saw them, durable adds.
        picture: file of the learning curve.
    """

    experiences: int
    accuracy_with_buffer: float
    accuracy_without_buffer: float
    accuracy_last_500: float
    recovered: int
    digest_equal: bool
    search_ms_p50: float
    search_ms_p99: float
    add_ms_p50: float
    picture: str


def run_demo(console: Console, log: str | None, path: Path | None, picture: Path) -> DemoReport:
    """Run the whole demo.

    Args:
        console: for progress.
        log: a log URL; by default the buffer's own.
        path: directory of the buffer; by default a temporary one.
        picture: where to write the learning curve.

    Raises:
        DemoFailed: see there.
    """
    for package in ("sklearn", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise DemoFailed(f"the demo needs {package}: install relive[demo]")
    with tempfile.TemporaryDirectory(prefix="relive-demo-") as temporary:
        directory = Path(temporary) / "buffer" if path is None else path
        steps, digest = _run_agent(console, directory, log)
        # Over Kafka the log alone must do: recovery starts from an empty directory.
        reopened = directory if log is None else Path(temporary) / "recovered"
        recovered, digest_now = _recover(reopened, log, steps)
    _draw(steps, picture)
    search_ms = [step.search_ms for step in steps]
    return DemoReport(
        experiences=len(steps),
        accuracy_with_buffer=_share([step.right for step in steps]),
        accuracy_without_buffer=_share([step.control_right for step in steps]),
        accuracy_last_500=_share([step.right for step in steps[-500:]]),
        recovered=recovered,
        digest_equal=digest == digest_now,
        search_ms_p50=round(float(np.percentile(search_ms, 50)), 3),
        search_ms_p99=round(float(np.percentile(search_ms, 99)), 3),
        add_ms_p50=round(float(np.median([step.add_ms for step in steps])), 3),
        picture=str(picture),
    )


def _run_agent(console: Console, directory: Path, log: str | None) -> tuple[list[Step], str]:
    """Run the agent to its end, then kill it with its buffer open."""
    command = [sys.executable, "-m", "relive.cli.digits", str(directory), *([log] if log else [])]
    agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    killer = threading.Timer(600.0, agent.kill)  # whatever happens, the demo ends
    killer.start()
    try:
        return _follow_agent(console, agent)
    finally:
        killer.cancel()
        agent.kill()
        agent.wait()


def _follow_agent(console: Console, agent: subprocess.Popen[str]) -> tuple[list[Step], str]:
    assert agent.stdout is not None
    steps: list[Step] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("the agent looks at digits", total=len(scans()))
        for line in agent.stdout:
            said = json.loads(line)
            if "digest" in said:
                return steps, said["digest"]
            steps.append(Step(**said))
            if len(steps) % 20 == 0:
                lately = _share([step.right for step in steps[-_WINDOW:]])
                description = f"{lately:4.0%} of the last {_WINDOW} right"
                progress.update(task, completed=len(steps), description=description)
    raise DemoFailed(f"the agent ended after {len(steps)} images (exit code {agent.wait()})")


def _recover(directory: Path, log: str | None, steps: list[Step]) -> tuple[int, str]:
    """How many of the acknowledged experiences are there again, and the digest of the state."""
    with ExperienceBuffer.open(directory, config(), log=log) as buffer:
        digest = buffer.stats().digest
        live = set(buffer.ids())
        return sum(step.id in live for step in steps), digest


def _share(hits: list[bool]) -> float:
    return round(sum(hits) / len(hits), 4) if hits else 0.0


def _draw(steps: list[Step], picture: Path) -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, hits, colour in (
        ("with the buffer", [step.right for step in steps], "#1f77b4"),
        ("without", [step.control_right for step in steps], "#999999"),
    ):
        window = min(_WINDOW, len(hits))
        curve = np.convolve(hits, np.ones(window) / window, mode="valid")
        axes.plot(np.arange(window, len(hits) + 1), curve, label=name, color=colour)
    axes.set(
        title="An agent that reads digits, told only right or wrong",
        xlabel="images seen",
        ylabel=f"right among the last {_WINDOW}",
        ylim=(0, 1),
    )
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
