"""A service with a page, what it serves, and a browser to look at it: for tests and pictures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.client import health

PATIENCE_S = 60.0
ROOMS = ("kitchen", "hall", "attic", "garden", "cellar")
# Text that would run where it was taken for markup.
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'}{{7*7}}'
_EVENT_TIME_US = 1_790_000_000_000_000


def browser_path() -> str | None:
    """Of a Chromium on this machine."""
    named = os.environ.get("RELIVE_TEST_BROWSER")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return named or next(filter(None, found), None)


@contextmanager
def browsing(path: str) -> Iterator[Browser]:
    """A browser without a window, which asks nobody but the page."""
    options = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        try:
            yield browser
        finally:
            browser.close()


def fill(directory: Path, count: int, *, hostile: bool) -> str:
    """Experiences of five rooms in a buffer, some used well, some badly; returns a sample's id."""
    rng = np.random.default_rng(7)
    places = rng.normal(size=(len(ROOMS), 24))
    with ExperienceBuffer.open(directory, BufferConfig(capacity=5_000)) as buffer:
        experiences = []
        for i in range(count):
            room = i % len(ROOMS)
            experiences.append(
                Experience(
                    id=f"episode-{i // 10}/step-{i % 10}",
                    visual=places[room] + 0.5 * rng.normal(size=24),
                    question=f"How do I get into the {ROOMS[room]}?",
                    trajectory=[{"action": "look"}, {"action": "open", "what": "door"}],
                    final_answer="through the door",
                    total_reward=round(float(rng.normal(0.2, 0.6)), 3),
                    model_confidence=round(float(rng.random()), 3),
                    metadata={"room": ROOMS[room], "floor": room % 3},
                    timestamp=_EVENT_TIME_US + i * 60_000_000,
                )
            )
        if hostile:
            experiences.append(
                Experience(
                    id=HOSTILE,
                    visual=places[0],
                    question=HOSTILE,
                    trajectory=[{HOSTILE: HOSTILE}],
                    final_answer=HOSTILE,
                    metadata={HOSTILE: HOSTILE},
                    timestamp=_EVENT_TIME_US + count * 60_000_000,
                )
            )
        buffer.add_many(experiences)
        for use in range(count // 10):
            room = use % len(ROOMS)
            result = buffer.search(visual=places[room] + 0.4 * rng.normal(size=24), k=8)
            for hit in result:
                better = 0.25 + 0.13 * room + 0.3 * use / (count // 10)
                success = bool(rng.random() < better)
                buffer.report_outcome(result.retrieval_id, hit.id, success=success)
        sample = buffer.sample(8, seed=5)
        buffer.report_outcome(sample.retrieval_id, sample[0].id, success=True)
        buffer.flush()
    return sample.retrieval_id


class Service:
    """A running `relive serve` with a page."""

    def __init__(self, directory: Path, said: Path, *options: object) -> None:
        self.directory = directory
        command = [sys.executable, "-m", "relive.cli.main", "serve", "--json"]
        command += ["--log", f"file:{directory}", "--path", str(directory / "service")]
        command += ["--listen", "127.0.0.1:0", "--page", "127.0.0.1:0"]
        with said.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, *map(str, options)], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self.process.stdout is not None
        listening = json.loads(self.process.stdout.readline())
        self.address: str = listening["listening"]
        self.url: str = listening["page"]

    def wait_until_serving(self) -> Service:
        deadline = time.monotonic() + PATIENCE_S
        while health(self.address, PATIENCE_S) != "SERVING":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        with self.process:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
