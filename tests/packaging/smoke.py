"""Run by nox in an environment that has the wheel and its dependencies only: does it work there?

python -I smoke.py EXTRAS
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path

MODULES = (
    "relive.buffer",
    "relive.client",
    "relive.config",
    "relive.consumers",
    "relive.core",
    "relive.errors",
    "relive.index_service",
    "relive.log",
    "relive.producers",
    "relive.schemas",
    "relive.testing.replay",
)


def installed() -> None:
    files = [str(file) for file in distribution("relive").files or ()]
    # The console script is named relative to site-packages.
    top = {file.partition("/")[0] for file in files if not file.startswith("..")}
    assert top == {"relive", f"relive-{version('relive')}.dist-info"}, top
    for name in MODULES:
        found = importlib.import_module(name).__file__
        assert found is not None
        assert Path(found).is_relative_to(sysconfig.get_path("purelib")), found


def typed() -> None:
    for package in {name.split(".")[1] for name in MODULES}:
        spec = find_spec(f"relive.{package}")
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).with_name("py.typed").is_file(), spec.origin


def command() -> None:
    for start in (["relive"], ["python", "-m", "relive.cli.main"]):
        start[0] = str(Path(sys.executable).with_name(start[0]))
        said = subprocess.run(
            [*start, "--help"], capture_output=True, text=True, timeout=60, check=True
        )
        assert "experience buffer" in said.stdout, said.stdout


def buffer(extras: set[str]) -> None:
    import numpy as np

    from relive.buffer import BufferConfig, Experience, ExperienceBuffer

    rows = np.random.default_rng(0).standard_normal((20, 8))
    config = BufferConfig(capacity=100, visual_dim=8)
    with tempfile.TemporaryDirectory() as folder:
        with ExperienceBuffer.open(f"{folder}/buffer", config) as buf:
            buf.add_many(Experience(id=f"x{n}", visual=row) for n, row in enumerate(rows))
            assert buf.search(visual=rows[7], k=3)[0].id == "x7"
            buf.flush()
            before = buf.stats()
        assert before.backend == ("faiss" if extras & {"cpu", "gpu"} else "numpy"), before.backend
        with ExperienceBuffer.open(f"{folder}/buffer") as buf:
            assert buf.stats().digest == before.digest
            assert [hit.id for hit in buf.search(visual=rows[3], k=1)] == ["x3"]


def kafka(extras: set[str]) -> None:
    from relive.errors import InvalidConfig, LogUnavailable
    from relive.log import open_log

    there = bool(extras & {"kafka", "testing"})
    assert (find_spec("confluent_kafka") is not None) == there
    said = ""
    try:
        open_log("kafka://127.0.0.1:1/experiences")
    except (InvalidConfig, LogUnavailable) as error:  # nothing listens at that port
        said = str(error)
    assert ("relive[kafka]" in said) != there, said


def main() -> None:
    extras = set(sys.argv[1].split(",")) - {""}
    installed()
    typed()
    command()
    buffer(extras)
    kafka(extras)
    print(f"smoke: Python {sys.version.split()[0]}, relive[{sys.argv[1]}]: fine")


if __name__ == "__main__":
    main()
