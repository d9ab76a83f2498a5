"""The page with examples/shapes, whose vectors mean something: what it draws, it finds by words."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.settings import Settings
from tests.app.playground.visit import Visit, draw_samples, names_of, open_view, type_queries
from tests.app.service_server import ServiceServer, run_service

SHAPES = Path(__file__).parents[3] / "examples" / "shapes"


@pytest.fixture(scope="module")
def shapes(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    settings = Settings(model=str(SHAPES), device="cpu", dtype="float32", text="on")
    with run_service(settings) as server:
        server.wait_for_status("ok")
        yield server


def test_every_drawing_is_the_best_for_its_own_caption(
    browser: Browser, shapes: ServiceServer
) -> None:
    visit = Visit(browser, shapes.url)
    page = visit.open()
    names = draw_samples(page)
    type_queries(page, names)

    best = [row.locator("img").first for row in page.locator("#images-for-texts section").all()]
    found = [names_of(image)[0] for image in best]
    star = [name for name in names if "star" in name]
    type_queries(page, ["a star", "a dog"])
    rows = page.locator("#images-for-texts section")
    percents = []
    for row in rows.all():
        scores = row.locator(".score").all_text_contents()
        percents.append([float(text.removeprefix("< ").partition(" ")[0]) for text in scores])
    open_view(page, "Patches")
    expect(page.locator("#board")).to_have_attribute("aria-label", f"4 by 4 patches of {names[0]}")

    assert found == names
    assert set(names_of(rows.nth(0).locator("img"))[: len(star)]) == set(star)
    assert max(percents[0]) > 90
    assert max(percents[1]) < 10
    assert not visit.problems
    page.context.close()
