"""A browser, and services whose pages it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request
from tests.integration.page.browsing import PATIENCE_S, Service, browser_path, browsing, fill


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the tests are skipped, which CI takes for a failure."""
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium: .ci/install has one, or set RELIVE_TEST_BROWSER to its path")
    with browsing(path) as found:
        yield found


@pytest.fixture(scope="module")
def retrieval_and_service(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Service]]:
    """A service of 60 experiences and one that would run if it could, and a sample's id."""
    directory = tmp_path_factory.mktemp("served")
    retrieval_id = fill(directory / "buffer", 60, hostile=True)
    service = Service(directory / "buffer", directory / "stderr")
    try:
        yield retrieval_id, service.wait_until_serving()
    finally:
        service.stop()


@pytest.fixture(scope="module")
def service(retrieval_and_service: tuple[str, Service]) -> Service:
    """The service alone."""
    return retrieval_and_service[1]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages; whatever the browser complains of, or asks of others, fails the test."""
    contexts = []
    complaints: list[str] = []

    def open_page(url: str, view: str = "", *, quiet: bool = False, **options: Any) -> Page:
        """A page at one of its views; `quiet` where the console has reason to complain."""

        def requested(sent: Request) -> None:
            if not sent.url.startswith(url):
                complaints.append(f"request: {sent.url}")

        context = browser.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_S * 1_000)
        page = context.new_page()
        if not quiet:
            page.on("console", lambda said: complaints.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", requested)
        page.goto(f"{url}#/{view}" if view else url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
