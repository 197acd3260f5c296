"""A progress bar on standard error, for what takes longer than a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich import filesize
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from relive.consumers.progress import Stage
from relive.core.results import BuildProgress

SHOWN_AFTER_S = 1.0
_LOOK_S = 0.1


def progress(what: str, total: int | None, done: Callable[[], int]) -> AbstractContextManager[None]:
    """Show how far the body is, with rate and time left. Only on a terminal.

    Args:
        what: is going on.
        total: how much there is to do; None where nobody can tell, so that the time that it has
            taken is shown instead.
        done: says how much of it is done; called from another thread.
    """
    return stages(lambda: Stage(what, done(), total))


def build_stage(build: BuildProgress | None) -> Stage:
    """How far a rebuild is; None before it has begun."""
    if build is None:
        return Stage("rebuilding the index")
    return Stage(f"rebuilding the index: {build.phase}", build.done, build.total or None)


@contextmanager
def stages(look: Callable[[], Stage]) -> Iterator[None]:
    """As `progress`, of what has several stages, one after the other.

    Args:
        look: says how far it is; called from another thread.
    """
    console = Console(stderr=True)
    # A terminal that cannot go back would be filled with bars.
    if not console.file.isatty() or console.is_dumb_terminal:
        yield
        return
    over = threading.Event()
    shown = threading.Thread(target=_show, args=(console, look, over), daemon=True)
    shown.start()
    try:
        yield
    finally:
        over.set()
        shown.join()


def _show(console: Console, look: Callable[[], Stage], over: threading.Event) -> None:
    if over.wait(SHOWN_AFTER_S):
        return
    columns = TextColumn("{task.description}"), BarColumn(), _Done(), _Rate(), _Time()
    with Progress(*columns, console=console, transient=True) as bar:
        task, shown = None, Stage("")
        while True:
            stage = look()
            # Each has a rate of its own; and rich can't be told that there is no total any more.
            if task is None or _kind(stage) != _kind(shown):
                if task is not None:
                    bar.remove_task(task)
                task = bar.add_task(stage.what, total=stage.total, unit=stage.unit)
            bar.update(task, completed=_within(stage), total=stage.total)
            shown = stage
            if over.wait(_LOOK_S):
                return


def _kind(stage: Stage) -> tuple[str, bool]:
    return stage.what, stage.total is None


def _within(stage: Stage) -> int:
    return stage.done if stage.total is None else min(stage.done, stage.total)


def _amount(task: Task, amount: float) -> str:
    if task.fields["unit"] == "bytes":
        return filesize.decimal(int(amount))
    return f"{amount:,.0f}"


class _Done(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.total is not None:
            return Text(f"{_amount(task, task.completed)}/{_amount(task, task.total)}")
        return Text(_amount(task, task.completed) if task.completed else "")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.speed
        return Text("" if not speed else f"{_amount(task, speed)}/s")


class _Time(ProgressColumn):
    """That it will take; that it has taken where nobody can tell."""

    def __init__(self) -> None:
        super().__init__()
        self._taken, self._left = TimeElapsedColumn(), TimeRemainingColumn()

    def render(self, task: Task) -> Text:
        return (self._taken if task.total is None else self._left).render(task)
