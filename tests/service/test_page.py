"""The page to search with, driven in a browser as people use it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from crosslens.service.application import PAGE, Access
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from stand_ins.index_cases import png
from stand_ins.live import Live
from stand_ins.patient import Patient

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
DROP = """data => {
    const carried = new DataTransfer();
    const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
    carried.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
    for (const name of ["dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(name, {dataTransfer: carried, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the distribution."""
    if CHROMIUM is None:
        missing = "no chromium on this machine: apt-get install chromium"
        (pytest.fail if os.environ.get("CROSSLENS_BROWSER") else pytest.skip)(missing)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of its own, in which no script fails and nothing is against the content security policy."""
    expect.set_options(timeout=20_000)
    wrong: list[str] = []
    with browser.new_context(viewport={"width": 1100, "height": 800}, locale="en", color_scheme="light") as context:
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        yield page
    assert not wrong


def search(page: Page, text: str) -> None:
    page.get_by_label("Search, in any language").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("body:not(.busy) #hits li").first).to_be_visible()


def drop(page: Page, picture: bytes) -> None:
    page.evaluate(DROP, base64.b64encode(picture).decode())


def langs(page: Page) -> set[str | None]:
    return {each.get_attribute("lang") for each in page.locator(".snippet, h3[lang]").all()}


def test_the_page_is_small_and_asks_no_other_host() -> None:
    files = [path for path in PAGE.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60_000
    linked = re.compile(r"(?:src|href|from|import|url)\W{1,3}(?:https?:)?//")
    assert not [path.name for path in files if linked.search(path.read_text("utf-8"))]


def test_typing_filtering_paging_and_going_back(live: Live, page: Page) -> None:
    page.goto(live.url)
    expect(page.locator(".lead")).to_contain_text("36 documents in 3 languages")
    heading = page.locator("#results-title")
    page.get_by_role("link", name="apple number 0").click()
    expect(page.locator("#hits mark").first).to_have_text("apple")
    search(page, "boat")
    expect(heading).to_have_text("36 results, 1–10")
    expect(page.get_by_role("status")).to_contain_text("36 results")
    expect(page.locator("#hits mark").first).to_have_text("boat")
    assert langs(page) >= {"ar", "en"}
    assert page.locator(".snippet[lang=ar]").first.get_attribute("dir") == "rtl"
    expect(page.locator(".facet", has_text="Russian")).to_have_text("Russian10")

    page.get_by_role("checkbox", name="Russian").check()
    expect(heading).to_have_text("10 results")
    assert langs(page) == {"ru"}
    expect(page.locator(".facet", has_text="Arabic")).to_have_text("Arabic10")  # counts stay those of the whole
    expect(page.get_by_role("checkbox", name="Russian")).to_be_focused()
    page.go_back()
    expect(heading).to_have_text("36 results, 1–10")
    first = page.locator("#hits h3").first.inner_text()
    page.get_by_role("link", name="Next").click()
    expect(heading).to_have_text("36 results, 11–20")
    expect(heading).to_be_focused()
    expect(page).to_have_url(re.compile(r"\?q=boat&offset=10$"))
    page.go_back()
    expect(page.locator("#hits h3").first).to_have_text(first)
    page.go_forward()
    expect(heading).to_have_text("36 results, 11–20")


def test_a_dropped_picture_finds_its_like_until_it_is_gone(live: Live, page: Page) -> None:
    page.goto(f"{live.url}/?rerank=false")
    drop(page, png(120))
    expect(page.locator("#hits h3").first).to_have_text("p3")
    expect(page.get_by_alt_text("The picture you search with")).to_be_visible()
    page.locator(".thumb").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("p3")
    expect(dialog.get_by_role("img")).to_have_js_property("naturalWidth", 4)
    page.go_back()
    expect(dialog).to_be_hidden()
    search(page, "apple")
    page.go_back()
    expect(page.locator("#hits h3").first).to_have_text("p3")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The picture of this search is gone")
    search(page, "apple")
    expect(page.get_by_role("alert")).to_be_empty()
    drop(page, b"no picture")
    expect(page.locator("#notice")).to_contain_text("picture")


def test_the_keyboard_alone(live: Live, page: Page) -> None:
    page.goto(f"{live.url}/?q=cloud&rerank=false")
    cards = page.locator(".card")
    expect(cards.first).to_be_visible()
    page.keyboard.press("j")
    expect(cards.first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("e")
    table = cards.nth(1).get_by_role("table")
    expect(table.get_by_role("rowheader")).to_have_text(["dense", "lexical", "hybrid"])
    page.get_by_label("Rerank").check()
    expect(page.locator("#timings")).to_contain_text("rerank")
    cards.nth(1).get_by_text("Why here?").click()
    expect(table.get_by_role("rowheader").last).to_have_text("yesnopatient")
    page.keyboard.press("Escape")
    expect(page).to_have_url(f"{live.url}/?rerank=true")
    page.keyboard.type("/?")  # in the box they are text
    expect(page.locator("#text")).to_have_value("/?")
    search(page, "door")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#document")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#document")).to_be_hidden()
    expect(cards.first.get_by_role("link").nth(0)).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("m")
    expect(page.locator("#like")).to_contain_text("like ")
    expect(page.locator("#results-title")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.get_by_label("Use these keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_a_link_holds_all_but_the_picture(live: Live, page: Page) -> None:
    page.goto(f"{live.url}/?q=boat&system=plain&k=3&offset=3&where=lang%3Dara&where=modality%3Dtext&open=t%2F5")
    expect(page.get_by_role("dialog")).to_contain_text("apple number 5")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#document")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("open="))  # going back takes its time
    expect(page.locator("#results-title")).to_have_text("10 results, 4–6")
    expect(page.locator("#system")).to_have_value("plain")
    expect(page.get_by_role("checkbox", name="Arabic")).to_be_checked()
    expect(page.locator(".facet", has_text="English")).to_have_text("English10")
    expect(page.locator("#rerank")).to_be_hidden()  # this system does not
    page.get_by_role("button", name="Remove the filter Arabic").click()
    expect(page.locator("#results-title")).to_have_text("30 results, 1–3")
    page.goto(f"{live.url}/?q=boat&picture=1")
    expect(page.get_by_role("alert")).to_contain_text("These are the results for the words alone")


def test_the_first_ranking_is_shown_while_another_is_made(live: Live, page: Page) -> None:
    def slow(route: Route) -> None:
        described = route.fetch().json()
        route.fulfill(json={**described, "rerank": {**described["rerank"], "seconds": 7}})

    page.route("**/service", slow)
    ended: list[str] = []
    page.on("requestfailed", lambda request: ended.append(json.loads(request.post_data or "{}")["text"]))
    page.goto(live.url)
    expect(page.locator("#rerank-cost")).to_have_text("takes about 7.0 s")
    Patient.held.set()
    try:
        search_box = page.locator("#text")
        search_box.fill("cloud seven")
        search_box.press("Enter")
        expect(page.locator("#timings")).to_contain_text("reranking")
        expect(page.locator(".card")).to_have_count(10)
        first = page.locator("#hits h3").all_inner_texts()
        search_box.fill("elephant nine")
        search_box.press("Enter")
        expect(page.locator("#hits h3")).not_to_have_text(first)
        assert ended == ["cloud seven"]
    finally:
        Patient.held.clear()
    expect(page.get_by_role("status")).to_contain_text("reranked")
    expect(page.locator("body")).not_to_have_class("busy")


def test_text_of_documents_stays_text_and_marks_are_by_code_points(live: Live, page: Page) -> None:
    def altered(route: Route) -> None:
        answer = route.fetch().json()
        own = {"snippet": "𝄞 <i>boat</i> 帆船", "highlights": [[5, 9], [14, 16]], "meta": {"title": "<b>A</b>"}}
        answer["hits"][0].update(own)
        route.fulfill(json=answer)

    page.route("**/search", altered)
    page.goto(f"{live.url}/?q=boat")
    card = page.locator(".card").first
    expect(card.locator("mark")).to_have_text(["boat", "帆船"])
    expect(card.get_by_role("heading")).to_have_text("<b>A</b>")
    expect(card.locator(".snippet")).to_have_text("𝄞 <i>boat</i> 帆船")


def test_a_busy_and_a_lost_server(live: Live, page: Page) -> None:
    page.goto(live.url)
    error = {"error": {"message": "too much at once", "type": "rate_limit_error", "code": None}}
    page.route("**/search", lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json=error), times=1)
    page.locator("#text").fill("boat")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Trying again in 1 second")
    expect(page.locator("#results-title")).to_contain_text("36 results")
    expect(page.get_by_role("alert")).to_be_empty()
    page.route("**/search", lambda route: route.abort(), times=1)
    page.locator("#text").fill("door")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#hits mark").first).to_have_text("door")
    page.goto(f"{live.url}/?q=x&where=lang%3Dxx")
    expect(page.get_by_role("alert")).to_contain_text("unknown language 'xx'")


def test_the_key_is_asked_for_and_goes_with_pictures_too(serve: Callable[..., Live], page: Page) -> None:
    keyed = serve(Access(key="secret"))
    page.goto(f"{keyed.url}/?q=picture")
    for key, says in (("wrong", "Please try another"), ("secret", "")):
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#key-wrong")).to_contain_text(says)
    expect(page.locator("#results-title")).to_contain_text("results")
    expect(page.locator(".thumb img").first).to_have_js_property("complete", True)
    expect(page.locator(".thumb img").first).not_to_have_js_property("naturalWidth", 0)
    page.reload()
    expect(page.locator("#results-title")).to_contain_text("results")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barrier_and_nothing_too_wide(live: Live, page: Page, theme: str) -> None:
    def check(where: str) -> None:
        found = Axe().run(page).response
        assert len(found["passes"]) > 15
        serious = [
            (each["id"], each["nodes"]) for each in found["violations"] if each["impact"] in ("serious", "critical")
        ]
        assert not serious, where
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= page.viewport_size["width"], where

    page.set_viewport_size({"width": 320, "height": 700})
    page.goto(f"{live.url}/?rerank=false")
    if theme == "dark":
        page.get_by_role("button", name="Dark").click()
        page.reload()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme.split(' ')[0]") == theme
    expect(page.locator(".lead")).to_be_visible()
    check("start")
    drop(page, png(120))
    expect(page.locator("#hits h3").first).to_have_text("p3")
    page.get_by_text("Filters").click()
    page.get_by_text("Why here?").first.click()
    expect(page.get_by_role("table")).to_be_visible()
    check("results")
    page.locator("#hits h3 a").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check("document")
