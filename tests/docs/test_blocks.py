"""Every Python and shell block of the documentation runs, in the order of its page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tests.docs.blocks import Block, blocks_of, localised, needs_kafka, service_ports

from relive.testing.broker import Broker
from relive.testing.ports import free_ports

ROOT = Path(__file__).parents[2]
# Nothing that could be run; `{…}` are Sphinx's own.
SHOWN = {
    "text",
    "toml",
    "json",
    "yaml",
    "promql",
    "{toctree}",
    "{eval-rst}",
    "{include}",
    "{reference}",
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def to_run(page: Path) -> list[Block]:
    return [b for b in blocks_of(page.read_text()) if b.kind in ("python", "sh") and not b.why_not]


RUN = [page for page in PAGES if to_run(page)]


def of(pages: list[Path], *, kafka: bool) -> list[object]:
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in pages
        if needs_kafka(page.read_text()) == kafka
    ]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of `relive`, and of `page`, which runs the blocks of one."""
    folder = tmp_path_factory.mktemp("commands")
    command = [sys.executable, "-W", "error", "-m", "tests.docs.forking", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield folder
        server.kill()


def run_page(page: Path, folder: Path, commands: Path, kafka: str = "") -> None:
    text = page.read_text()
    ports = service_ports(text)
    free = dict(zip(ports, free_ports(len(ports)), strict=True))
    blocks = [
        {**block.as_json(), "text": localised(block.text, kafka, free)}
        for block in blocks_of(text)
        if not block.why_not
    ]
    (folder / "blocks.json").write_text(json.dumps(blocks))
    (folder / "here").mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RELIVE_")}
    environ["PYTEST_ADDOPTS"] = ""  # options meant for the tests around this one
    places = [commands, Path(sys.executable).parent, environ["PATH"]]
    environ["PATH"] = os.pathsep.join(map(str, places))
    with (folder / "said").open("w") as output:
        session = subprocess.Popen(
            [commands / "page", folder / "blocks.json"],
            cwd=folder / "here",
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            session.wait(110)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(session.pid, signal.SIGKILL)  # and what it left running
    assert session.returncode == 0, (folder / "said").read_text()


@pytest.mark.parametrize("page", of(RUN, kafka=False))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, commands: Path) -> None:
    run_page(page, tmp_path, commands)


@pytest.mark.broker
@pytest.mark.parametrize("page", of(RUN, kafka=True))
def test_the_blocks_of_a_page_run_with_a_broker(
    page: Path, tmp_path: Path, commands: Path, kafka_broker: Broker
) -> None:
    topic = f"docs-{uuid4().hex}"
    try:
        run_page(page, tmp_path, commands, f"{kafka_broker.bootstrap}/{topic}")
    finally:
        admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap})
        with suppress(KafkaException):  # the page failed before it made one
            admin.delete_topics([topic])[topic].result(30)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_no_block_escapes_by_the_name_of_its_language(page: Path) -> None:
    text = page.read_text()
    languages = set(re.findall(r"^ *```([^\s`]+)", text, re.MULTILINE))
    assert languages <= {"python", "sh", *SHOWN}


def test_blocks_are_told_apart() -> None:
    text = """
```python
run()
```

<!-- not run: it needs a GPU -->
```sh
relive doctor --gpu
```

```toml title="relive.toml"
capacity = 1
```

```text
shown
```
"""
    assert blocks_of(text) == [
        Block("python", "run()\n", 3),
        Block("sh", "relive doctor --gpu\n", 8, why_not="it needs a GPU"),
        Block("file", "capacity = 1\n", 12, "relive.toml"),
        Block("other", "shown\n", 16),
    ]
