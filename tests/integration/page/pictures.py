"""Takes the pictures of the page in docs/: `make pictures`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser
from tests.integration.page.browsing import Service, browser_path, browsing, fill

DOCS = Path(__file__).parents[3] / "docs"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# Each view, and what is there once it is complete.
VIEWS = {
    "overview": "#priority-chart svg",
    "map": "#map-plot svg",
    "explain": "#explained table",
}


def take(browser: Browser, url: str, retrieval_id: str) -> None:
    """All views, in both colour schemes."""
    for scheme in SCHEMES:
        context = browser.new_context(
            color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1_200, "height": 760}
        )
        page = context.new_page()
        for view, complete in VIEWS.items():
            page.goto(f"{url}#/{view}" + (f"/{retrieval_id}" if view == "explain" else ""))
            page.wait_for_selector(complete)
            file = DOCS / f"page-{view}-{scheme}.png"
            page.screenshot(path=file, full_page=True, animations="disabled")
            print(file)
        context.close()


def main() -> int:
    path = browser_path()
    if path is None:
        print("no Chromium: .ci/install has one, or set RELIVE_TEST_BROWSER to its path")
        return 1
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        retrieval_id = fill(directory / "buffer", 1_200, hostile=False)
        service = Service(directory / "buffer", directory / "stderr").wait_until_serving()
        try:
            # Something that comes in while it serves, and a few points of its trend.
            for _ in range(4):
                fill(directory / "buffer", 40, hostile=False)
                time.sleep(10.0)
            with browsing(path) as browser:
                take(browser, service.url, retrieval_id)
        finally:
            service.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
