"""The command line in this process, which is faster than a process for each command."""

from __future__ import annotations

import io
import json
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.cli.main import main

Relive = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What its only line of output says."""
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture
def relive(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Relive]:
    """Runs a command: `relive("stats", directory, "--json").json`."""
    loggers = [logging.getLogger(n) for n in ("relive", "relive.consumers", "relive.log.kafka")]
    levels = [logger.level for logger in loggers]
    handler = signal.getsignal(signal.SIGINT)

    def run(*arguments: object, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["relive", *map(str, arguments)])
        with tempfile.TemporaryFile() as file:
            file.write(stdin)
            file.seek(0)
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
            return run_main()

    def run_main() -> Ended:
        capsys.readouterr()
        caplog.clear()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err + caplog.text)

    yield run
    signal.signal(signal.SIGINT, handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def filled_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `directory` is a copy of."""
    directory = tmp_path_factory.mktemp("filled") / "buffer"
    with ExperienceBuffer.open(directory, BufferConfig(capacity=10)) as buffer:
        for n in range(20):
            buffer.add(
                Experience(
                    id=f"x{n}",
                    visual=[1.0, n / 10],
                    text=[float(n), 1.0, 0.0] if n % 2 else None,
                    question=f"question {n}",
                    final_answer={"answer": n},
                    total_reward=n / 10,
                    metadata={"floor": n % 4},
                )
            )
        buffer.flush()
    return directory


@pytest.fixture
def directory(filled_directory: Path, tmp_path: Path) -> Path:
    """Of a buffer with room for ten, which held x0 to x19; closed."""
    return Path(shutil.copytree(filled_directory, tmp_path / "buffer"))
