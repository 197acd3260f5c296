"""How `relive serve` starts the page, and where it refuses to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.integration.page.browsing import PATIENCE_S

from relive.buffer import ExperienceBuffer

OPTIONS = ("--listen", "127.0.0.1:0")


def command(directory: Path, *options: str) -> list[str]:
    start = [sys.executable, "-m", "relive.cli.main", "serve", "--log", f"file:{directory}"]
    return [*start, "--path", str(directory / "service"), *OPTIONS, *options]


def test_the_page_is_there_where_it_is_set_and_says_where(tmp_path: Path) -> None:
    ExperienceBuffer.open(tmp_path / "buffer").close()
    with subprocess.Popen(
        command(tmp_path / "buffer", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RELIVE_PAGE_LISTEN": "127.0.0.1:0"},
        text=True,
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["listening"] != said["page"]
        with urllib.request.urlopen(f"{said['page']}api/state", timeout=PATIENCE_S) as reply:
            assert json.load(reply)["phase"] in ("recovering", "serving")
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_where_the_page_cannot_be_nothing_is_served(tmp_path: Path) -> None:
    ExperienceBuffer.open(tmp_path / "buffer").close()
    done = subprocess.run(
        command(tmp_path / "buffer", "--page", "0.0.0.0:0"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode not in (0, 1)
    assert "page_listen: would be open to the network in plaintext" in done.stderr
    assert done.stdout == ""
