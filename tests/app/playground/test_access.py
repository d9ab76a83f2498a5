"""For everybody: light and dark, on a phone, by keyboard alone, for screen readers.

axe-core comes from npm; without it its test is skipped, and with REQUIRE_NODE=1 it fails.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.app.images import NO_IMAGE
from tests.app.playground.visit import (
    Visit,
    add_images,
    draw_samples,
    open_view,
    wait_for_images,
)

AXE = Path(sys.prefix) / "node" / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = ("Matches", "Heat map", "Patches", "Vectors")
PHONE = {"width": 360, "height": 700}


@pytest.fixture
def axe() -> str:
    """The program of axe-core, which finds what keeps people out."""
    if not AXE.is_file() and os.environ.get("REQUIRE_NODE") == "1":
        pytest.fail("REQUIRE_NODE=1, but there is no axe-core")
    if not AXE.is_file():
        pytest.skip("needs axe-core")
    return AXE.read_text()


def fill(page: Page) -> None:
    """Have something of all: samples, texts, an error."""
    draw_samples(page)
    add_images(page, {"broken.png": NO_IMAGE})


def open_ready(page: Page, view: str) -> None:
    open_view(page, view)
    if view == "Patches":
        expect(page.locator("#patch-view")).to_be_visible()
        page.get_by_label("Light up what is like").select_option("a star")


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"color_scheme": "dark", "viewport": PHONE}],
    ids=["light", "dark", "phone"],
)
def test_axe_finds_nothing(visit: Visit, axe: str, options: dict[str, Any]) -> None:
    page = visit.open(lambda context: context.add_init_script(axe), **options)
    find = "axe.run().then(({violations}) => violations.map(({id, nodes}) => [id, nodes[0].html]))"

    assert page.evaluate(find) == []
    fill(page)
    for view in VIEWS:
        open_ready(page, view)
        assert page.evaluate(find) == [], view
    for hidden in ("key-form", "random", "progress"):
        page.evaluate(f"document.getElementById('{hidden}').hidden = false")
    assert page.evaluate(find) == []
    page.evaluate("document.querySelector('#draw').textContent = ''")
    assert page.evaluate(find), "it does look"


def test_nothing_is_wider_than_a_phone(visit: Visit) -> None:
    page = visit.open(viewport=PHONE)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    fill(page)
    for view in VIEWS:
        open_ready(page, view)
        assert page.evaluate(width) == 360, view
        edges = page.locator("button, select, label, img, canvas").evaluate_all(
            "controls => controls.map(each => each.getBoundingClientRect())"
            ".flatMap(({left, right}) => [left, right])"
        )
        if view != "Heat map":  # which is scrolled in a box of its own
            assert 0 <= min(edges) <= max(edges) <= 360


def test_dark_is_dark(visit: Visit) -> None:
    def colours(page: Page) -> list[float]:
        styles = [
            page.evaluate(f"getComputedStyle(document.querySelector('{where}')).{what}")
            for where, what in (
                ("html", "backgroundColor"),
                (".card", "backgroundColor"),
                ("h1", "color"),
            )
        ]
        return [sum(map(float, re.findall(r"[\d.]+", style)[:3])) / 3 for style in styles]

    ground, card, ink = colours(visit.open(color_scheme="light"))
    assert min(ground, card) > 230
    assert ink < 60
    ground, card, ink = colours(visit.open(color_scheme="dark"))
    assert max(ground, card) < 40
    assert ink > 200


def press(page: Page, key: str, until: str) -> None:
    """Press a key, at most so often as a patient person, until an element of this id has focus."""
    for _ in range(40):
        page.keyboard.press(key)
        if page.evaluate("document.activeElement.id || document.activeElement.value") == until:
            focus = "(document.activeElement.closest('label') ?? document.activeElement)"
            outline = page.evaluate(f"getComputedStyle({focus}).outlineStyle")
            assert outline == "solid", f"{until} shows that it has focus"
            return
    raise AssertionError(f"{key} does not lead to {until}")


def test_images_and_texts_are_given_by_keyboard(visit: Visit) -> None:
    page = visit.open()
    page.on("filechooser", lambda _: None)  # now, for the browser takes its time to heed it
    press(page, "Tab", until="files")
    with page.expect_file_chooser():
        page.keyboard.press("Enter")
    press(page, "Tab", until="draw")
    page.keyboard.press("Enter")
    wait_for_images(page, 12)
    press(page, "Tab", until="clear")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    chosen = page.locator("#gallery button").nth(2)
    expect(chosen).to_be_focused()
    expect(chosen).to_have_attribute("aria-pressed", "true")
    press(page, "Tab", until="queries")
    page.keyboard.press("Control+a")
    page.keyboard.type("a ring\na cross")
    expect(page.locator("#images-for-texts h3")).to_have_text(["a ring", "a cross"])


def test_views_are_used_by_keyboard(visit: Visit) -> None:
    page = visit.open()
    draw_samples(page)
    press(page, "Tab", until="matches")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("table")).to_be_visible()
    page.keyboard.press("ArrowRight")
    press(page, "Tab", until="overlay")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#rough")).to_be_visible()
    press(page, "Tab", until="board")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#patch-reading")).to_contain_text("row 5, column 4 (cosine")
    press(page, "Shift+Tab", until="patches")
    page.keyboard.press("ArrowRight")
    press(page, "Tab", until="subject")
    press(page, "Tab", until="json")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#code")).to_contain_text("curl http://")
    press(page, "Tab", until="copy")
    page.keyboard.press("Enter")
    expect(page.locator("#copied")).to_have_text("Copied")


def test_images_are_dropped_and_pasted(visit: Visit) -> None:
    """As the browser tells of them: files in a transfer."""
    page = visit.open()
    give = """([kind, name]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File(["no image"], name, {type: "image/png"}));
      const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true})
        : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
      return document.getElementById("drop").dispatchEvent(event);
    }"""
    assert not page.evaluate(give, ["dragover", "dropped.png"]), "it may be dropped here"
    expect(page.locator("#drop")).to_have_class("over")
    assert not page.evaluate(give, ["drop", "dropped.png"])
    expect(page.locator("#drop")).not_to_have_class("over")
    assert not page.evaluate(give, ["paste", "pasted.png"])
    expect(page.locator("#status")).to_have_text("2 of 2 images, 2 not taken")
    expect(page.locator("#gallery img")).to_have_count(2)
