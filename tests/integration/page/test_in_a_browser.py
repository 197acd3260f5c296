"""The page as people use it: in a real browser, over a real service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from tests.integration.page.browsing import HOSTILE, PATIENCE_S, Service

from relive.buffer import Experience
from relive.consumers import MemoryStore
from relive.index_service import Engine
from relive.index_service.page.page import Page as PageServer
from relive.index_service.rpc_security import ServerSecurity
from relive.index_service.server import IndexServer
from relive.log.memory import MemoryLog
from relive.producers import Publisher
from relive.producers.compose import Composer, keyed_record

expect.set_options(timeout=PATIENCE_S * 1_000)

OpenPage = Callable[..., Page]
READER = "reader-s3cret-s3cret"
FIRST = "episode-0/step-0"


def heading(page: Page) -> Any:
    return page.locator("h1:visible")


def ask(page: Page, path: str) -> Any:
    return page.evaluate("path => fetch(path).then(reply => reply.json())", path)


def card(page: Page, name: str) -> Any:
    return page.locator("#cards > div", has=page.locator("dt", has_text=name)).locator(".number")


def test_the_overview_says_how_it_stands(service: Service, open_page: OpenPage) -> None:
    page = open_page(service.url)
    expect(heading(page)).to_have_text("Overview")
    expect(page.locator("#phase")).to_have_text("serving")
    expect(card(page, "Experiences")).to_have_text(re.compile(r"6\d"))
    expect(card(page, "Lag")).to_have_text("0 events")
    expect(card(page, "Success rate")).to_have_text(re.compile(r"\d+\.\d %"))
    expect(page.get_by_role("img", name=re.compile("Success rate from"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("have a priority from"))).to_be_visible()
    # The same as numbers.
    page.locator("#priority-chart summary").click()
    expect(page.locator("#priority-chart tbody tr")).to_have_count(20)


def test_what_comes_in_is_shown_without_a_reload(service: Service, open_page: OpenPage) -> None:
    page = open_page(service.url, quiet=True)
    expect(card(page, "Experiences")).to_have_text(re.compile(r"\d+"))
    before = int(card(page, "Experiences").inner_text())
    with Publisher(f"file:{service.directory}") as publisher:
        publisher.publish(Experience(id="new", visual=np.ones(24))).result(PATIENCE_S)
    expect(card(page, "Experiences")).to_have_text(str(before + 1))
    expect(card(page, "Freshness")).to_contain_text("≤")

    pause = page.get_by_role("button", name="Pause updates")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    pause.click()
    # A service that is gone is not passed off as one that serves.
    page.route("**/api/**", lambda route: route.abort())
    expect(page.locator("#phase")).to_have_text("not reached")
    expect(page.get_by_role("alert")).to_have_text("The service does not answer.")
    page.unroute("**/api/**")
    expect(page.locator("#phase")).to_have_text("serving")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_map_has_a_point_and_a_row_for_every_experience(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(service.url, "map")
    points = page.locator("#map-plot .point")
    expect(points).to_have_count(len(ask(page, "api/map")["ids"]))
    expect(page.locator("#map-legend")).to_contain_text("no outcome known")
    page.get_by_text("Table of the points").click()
    expect(page.locator("#map-table tbody tr")).to_have_count(points.count())
    page.locator("#map-plot .point").nth(30).click(force=True)
    expect(heading(page)).to_contain_text("Experience ")
    page.go_back()
    page.get_by_role("link", name=FIRST, exact=True).click()
    expect(heading(page)).to_have_text(f"Experience {FIRST}")


def test_an_experience_is_found_by_words_and_by_what_is_like_it(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(service.url, "search")
    page.get_by_label("Words", exact=True).fill("ATTIC")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#search-summary")).to_contain_text("10 found")
    expect(page.locator("#hits tbody tr").first).to_contain_text("How do I get into the attic?")

    page.locator("#hits a").first.click()
    page.get_by_role("link", name="Search for more like this").click()
    expect(page.locator("#search-summary")).to_contain_text("not recorded")
    expect(page.locator("#hits tbody tr")).to_have_count(10)
    expect(page.locator("#hits tbody tr").first.locator("td").nth(1)).to_have_text("1")

    # Only those of one floor.
    page.get_by_label("Metadata, a line KEY=VALUE each").fill("floor=2\nroom=attic")
    page.get_by_label("How many").fill("3")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#hits tbody tr")).to_have_count(3)
    page.get_by_label("Metadata, a line KEY=VALUE each").fill("floor")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#search-summary")).to_contain_text("is not KEY=VALUE")


def test_an_embedding_is_pasted_and_the_search_recorded(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(service.url, "search", quiet=True)
    page.get_by_label("an embedding").check()
    page.get_by_label("Visual embedding").fill(json.dumps([0.5] * 23))
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#search-summary")).to_contain_text("visual")  # a number is missing
    page.get_by_label("Visual embedding").fill(json.dumps([0.5] * 24))
    page.get_by_label("record it as a retrieval").check()
    page.get_by_label("How many").fill("4")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#hits tbody tr")).to_have_count(4)
    found = page.locator("#hits a").first.inner_text()
    page.locator("#search-summary a").click()
    expect(heading(page)).to_have_text("Explain")
    expect(page.locator("#explain-summary")).to_contain_text("returned 4 experiences")
    expect(page.locator("#explained a").first).to_have_text(found)


def test_an_experience_has_its_history_and_a_sample_its_reasons(
    retrieval_and_service: tuple[str, Service], open_page: OpenPage
) -> None:
    retrieval_id, service = retrieval_and_service
    page = open_page(service.url, "explain")
    page.get_by_label("Retrieval id").fill(retrieval_id)
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#explain-summary")).to_contain_text("A sample by")
    expect(page.locator("#explain-summary")).to_contain_text("seed 5")
    expect(page.locator("#explained tbody tr")).to_have_count(8)
    expect(page.locator("#explained th")).to_contain_text(["Probability", "Reward", "Priority"])
    row = page.locator("#explained tbody tr", has_text="success").first
    expect(row).to_be_visible()

    row.get_by_role("link").click()
    expect(page.locator("#history-summary")).to_contain_text("events, newest first.")
    expect(page.locator("#history")).to_contain_text("sampled, probability")
    expect(page.locator("#history")).to_contain_text("recorded")
    expect(page.locator("#experience-content")).to_contain_text("% of draws by priority")
    page.locator("#history a", has_text=retrieval_id).first.click()
    expect(page.locator("#explain-summary")).to_contain_text("A sample by")


def test_what_producers_wrote_is_text_and_never_markup(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(service.url, "search")
    page.get_by_role("button", name="Search").click()
    row = page.locator("#hits tbody tr", has_text=HOSTILE)
    expect(row.locator("td")).to_contain_text([HOSTILE, HOSTILE, HOSTILE])
    row.get_by_role("link").click()

    expect(heading(page)).to_have_text(f"Experience {HOSTILE}")
    expect(page.locator("#history tbody tr").last).to_contain_text("recorded")
    for name in ("Question", "Answer", "Metadata", "Trajectory"):
        text = page.get_by_role("region", name=name).inner_text()
        assert text.replace('\\"', '"').count(HOSTILE) == (
            2 if name in ("Metadata", "Trajectory") else 1
        )
    assert "Experience <img src=x" in page.title()

    page.get_by_role("link", name="Search for more like this").click()
    expect(page.locator("#hits tbody td").nth(1)).to_have_text("1")
    page.get_by_role("link", name="Map").click()
    page.get_by_text("Table of the points").click()
    expect(page.get_by_role("link", name=HOSTILE, exact=True)).to_be_visible()

    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script, main iframe").count() == 0


def test_even_a_page_that_were_made_to_could_not_run_a_script(
    service: Service, open_page: OpenPage
) -> None:
    """The policy holds if the page's own code should not."""
    page = open_page(service.url, quiet=True)
    tried = page.evaluate(
        """() => [
            () => { document.body.innerHTML = "<img src=x onerror='window.hacked=1'>" },
            () => { document.createElement("script").textContent = "window.hacked=1" },
            () => { document.createElement("script").src = "data:,window.hacked=1" },
            () => { document.createElement("a").setAttribute("onclick", "window.hacked=1") },
        ].map((attempt) => { try { attempt(); return "done" } catch (error) { return error.name } })
        """
    )
    assert tried == ["TypeError"] * 4
    assert page.evaluate("window.hacked") is None


@contextmanager
def guarded(tokens: Path) -> Iterator[str]:
    """The URL of a page in this process that takes tokens, over 20 experiences."""
    log, composer = MemoryLog(), Composer("test")
    for i in range(20):
        event = composer.experience(Experience(id=f"x{i}", visual=np.eye(3)[i % 3]))
        log.append([keyed_record(event, 1)])
    server = IndexServer(lambda: Engine(log, MemoryStore()), log)
    served = PageServer(server, log, "127.0.0.1:0", ServerSecurity(tokens_file=tokens))
    try:
        server.start()
        server.recover()
        served.start()
        yield served.url
    finally:
        served.close()
        server.close(1.0)


def test_without_a_token_there_is_a_form_and_nothing_else(
    open_page: OpenPage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"read {READER}\n")
    with guarded(tokens) as url:
        page = open_page(url, "map", quiet=True)
        expect(heading(page)).to_have_text("Log in")
        expect(page.get_by_label("Token")).to_be_focused()
        page.get_by_label("Token").fill("wrong")
        page.get_by_label("Token").press("Enter")
        expect(page.get_by_role("alert")).to_have_text("the service does not know this token")
        page.get_by_label("Token").fill(READER)
        page.get_by_label("Token").press("Enter")
        expect(page.locator("#map-plot .point")).to_have_count(20)

        page.reload()
        expect(page.locator("#map-plot .point")).to_have_count(20)
        assert page.evaluate("document.cookie") == ""
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert READER not in json.dumps(cookie) + page.content()

        page.get_by_role("button", name="Log out").click()
        expect(heading(page)).to_have_text("Log in")
        page.reload()
        expect(heading(page)).to_have_text("Log in")
    assert READER not in caplog.text


def test_the_page_is_used_without_a_mouse(service: Service, open_page: OpenPage) -> None:
    page = open_page(service.url)
    expect(card(page, "Experiences")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Search").focus()
    page.keyboard.press("Enter")
    expect(heading(page)).to_have_text("Search")
    expect(heading(page)).to_be_focused()  # so that a screen reader says where it is
    page.keyboard.press("Tab")
    expect(page.get_by_label("words in the question")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("garden")
    page.keyboard.press("Enter")
    expect(page.locator("#hits tbody tr").first).to_contain_text("garden")
    expect(page.get_by_role("status").first).to_contain_text("found")
    expect(page.get_by_role("navigation", name="Views").get_by_role("link")).to_have_count(4)
    expect(page.get_by_role("link", name="Search")).to_have_attribute("aria-current", "page")
    expect(page.get_by_role("region", name="Results")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(
    retrieval_and_service: tuple[str, Service], open_page: OpenPage, scheme: str
) -> None:
    """By axe-core's rules: contrast, names, roles, order of headings and the like."""
    retrieval_id, service = retrieval_and_service
    axe = Axe()
    # It runs in the page, which the page's policy forbids.
    page = open_page(service.url, color_scheme=scheme, bypass_csp=True)
    # In the dark nothing differs but colours.
    rules: dict[str, Any] = {"resultTypes": ["violations"]}
    if scheme == "dark":
        rules["runOnly"] = ["color-contrast"]
    for view, shown in (
        ("overview", "#priority-chart svg"),
        ("map", "#map-plot svg"),
        (f"search/{quote(FIRST, safe='')}", "#hits table"),
        (f"experience/{quote(FIRST, safe='')}", "#history table"),
        (f"explain/{retrieval_id}", "#explained table"),
    ):
        page.goto(f"{service.url}#/{view}")
        page.wait_for_selector(shown)
        if view == "overview":
            page.evaluate("document.querySelectorAll('#overview details').forEach(d => d.open = 1)")
        found = axe.run(page, options=rules)
        assert found.violations_count == 0, found.generate_report()
        assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}


def test_it_fits_a_small_window(service: Service, open_page: OpenPage) -> None:
    page = open_page(service.url, viewport={"width": 360, "height": 640})
    for view in ("overview", "map", "search", "explain"):
        page.goto(f"{service.url}#/{view}")
        expect(heading(page)).to_be_visible()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, view
