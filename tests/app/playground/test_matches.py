"""Images and texts given to the page, ranked by what the service says of them."""

import re
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app.images import NO_IMAGE, encode, plain_png, scene
from tests.app.playground.conftest import IMAGES
from tests.app.playground.visit import (
    Visit,
    add_images,
    draw_samples,
    names_of,
    open_view,
    type_queries,
    wait_for_images,
)
from tests.app.service_server import ServiceServer

TEXTS = ["a red bicycle", "two dogs <b>running</b>", "'a \"cat\"' & more"]


def vectors_of(service: ServiceServer) -> tuple[np.ndarray, np.ndarray]:
    """Return what the service makes of `IMAGES` and `TEXTS`: unit rows."""
    files = [("images", (name, content)) for name, content in IMAGES.items()]
    images: Any = service.client.post("/embed", files=files).json()["data"]
    texts: Any = service.client.post("/embed/text", json={"texts": TEXTS}).json()["data"]
    rows = [np.array([item["embedding"] for item in items]) for items in (images, texts)]
    return rows[0], rows[1]


def scores_of(items: Locator) -> list[tuple[float, float]]:
    """Return percents and cosines as they are shown."""
    shown = [re.fullmatch(r"([\d.]+) % ?cos (\S+)", text) for text in items.all_text_contents()]
    assert all(shown)
    return [(float(score[1]), float(score[2])) for score in shown if score]


@pytest.fixture
def page(visit: Visit) -> Page:
    """The page with four images and three texts."""
    page = visit.open()
    add_images(page, IMAGES)
    type_queries(page, TEXTS)
    return page


def test_images_are_ranked_for_each_text(page: Page, service: ServiceServer) -> None:
    images, texts = vectors_of(service)
    (model,) = service.client.get("/v1/models").json()["data"]
    cosines = texts @ images.T
    percents = 100 / (1 + np.exp(-(np.exp(model["logit_scale"]) * cosines + model["logit_bias"])))

    for at, row in enumerate(page.locator("#images-for-texts section").all()):
        order = np.argsort(-cosines[at])
        assert names_of(row.locator("img")) == [list(IMAGES)[i] for i in order]
        expected = np.stack([percents[at][order], cosines[at][order]], axis=1)
        np.testing.assert_allclose(scores_of(row.locator(".score")), expected, atol=0.051, rtol=0)
        shown = [cosine for _, cosine in scores_of(row.locator(".score"))]
        np.testing.assert_allclose(shown, cosines[at][order], atol=0.00051, rtol=0)


def test_texts_are_ranked_for_the_image_that_is_chosen(page: Page, service: ServiceServer) -> None:
    images, texts = vectors_of(service)
    for at, name in enumerate(IMAGES):
        page.get_by_role("button", name=name).click()
        cosines = texts @ images[at]
        order = np.argsort(-cosines)
        rows = page.locator("#texts-for-image li")
        expect(page.locator("#texts-for-image h3")).to_have_text(f"Texts for {name}")
        assert rows.locator("span:first-child:not(.score)").all_text_contents() == [
            TEXTS[i] for i in order
        ]
        shown = [cosine for _, cosine in scores_of(rows.locator(".score"))]
        np.testing.assert_allclose(shown, cosines[order], atol=0.00051, rtol=0)
        expect(page.locator("#gallery [aria-pressed=true] img")).to_have_attribute("alt", name)


def test_the_heat_map_has_each_pair(page: Page, service: ServiceServer) -> None:
    images, _ = vectors_of(service)
    open_view(page, "Heat map")
    table = page.get_by_role("table", name="Cosine, image by image")

    for scope in ("col", "row"):
        assert names_of(table.locator(f"th[scope={scope}] img")) == list(IMAGES)
    cells = [
        [float(text) for text in row.locator("td").all_text_contents()]
        for row in table.locator("tbody tr").all()
    ]
    np.testing.assert_allclose(cells, images @ images.T, atol=0.0051, rtol=0)
    heats = [
        float(cell.evaluate("cell => cell.style.getPropertyValue('--heat')"))
        for cell in table.locator("tbody td").all()
    ]
    assert (min(heats), max(heats)) == (0, 1)


def test_a_text_is_asked_for_once_and_goes_when_it_is_deleted(page: Page, visit: Visit) -> None:
    asked = visit.count("POST /embed/text")
    type_queries(page, [*TEXTS, "", "  one more ", "one more"][:3])
    type_queries(page, TEXTS[1:])
    assert visit.count("POST /embed/text") == asked

    page.get_by_role("textbox", name="Queries").fill("\n\n  one more \none more\n")
    expect(page.locator("#images-for-texts h3")).to_have_text(["one more"])
    assert visit.count("POST /embed/text") == asked + 1


def test_a_text_that_is_refused_says_why(page: Page, visit: Visit) -> None:
    page.get_by_role("textbox", name="Queries").fill("a" * 401)
    expect(page.locator("#query-note")).to_have_text(
        "a text has more than 400 bytes (SIGLIP_MAX_TEXT_BYTES)"
    )
    visit.expect_refusal(413)
    type_queries(page, ["short"])
    expect(page.locator("#query-note")).to_be_empty()


def test_an_error_stands_at_its_image(visit: Visit) -> None:
    page = visit.open()
    noise = encode(scene(9, (200, 200)))
    assert len(noise) > 30_000, "over the limit of one image"
    files = {"broken.png": NO_IMAGE, **IMAGES, "large.png": noise, "dot.png": plain_png((1, 2, 3))}
    add_images(page, files)

    expect(page.locator("#status")).to_have_text("7 of 7 images, 2 not taken")
    said = {
        name: item.locator("p").inner_text()
        for name, item in zip(files, page.locator("#gallery li").all(), strict=True)
    }
    assert said.pop("broken.png").startswith("these bytes are no image of a known format")
    assert "30000 bytes" in said.pop("large.png")
    assert said.pop("dot.png") == "upscaled"
    assert set(said.values()) <= {"", "upscaled"}
    for name in ("broken.png", "large.png"):
        assert page.get_by_role("button", name=name).is_disabled()
    expect(page.locator("#gallery [aria-pressed=true] img")).to_have_attribute("alt", "scene 0.png")


def test_an_image_beyond_the_body_is_refused_alone(visit: Visit) -> None:
    page = visit.open()
    add_images(page, {"huge.png": bytes(60_000), **IMAGES})

    visit.expect_refusal(413)
    expect(page.locator("#gallery .error")).to_have_text(
        ["the body is over 50000 bytes (SIGLIP_MAX_BODY_BYTES)"]
    )
    expect(page.locator("#status")).to_have_text("5 of 5 images, 1 not taken")


def test_requests_keep_to_the_limits(visit: Visit) -> None:
    """5 images and 50,000 bytes in one request."""
    page = visit.open()
    add_images(page, {f"{i}.png": plain_png((i, 0, 0)) for i in range(12)})
    assert visit.count("POST /embed") == 3

    add_images(page, {f"noise {i}.png": encode(scene(i, (150, 150))) for i in range(3)})
    assert visit.count("POST /embed") == 3 + 2
    expect(page.locator("#gallery .error")).to_have_count(0)


def test_samples_are_drawn_and_explain_themselves(visit: Visit) -> None:
    page = visit.open()
    first = draw_samples(page)
    queries = page.get_by_role("textbox", name="Queries").input_value().splitlines()

    assert len(set(first)) == 12
    colours = "red|orange|yellow|green|blue|purple|white|black"
    one = rf"a (small|large) ({colours}) (circle|square|triangle|star|cross|ring)"
    ends = rf"( on a (white|grey|pink|brown|black) ground| (left of|above) {one})"
    assert all(re.fullmatch(one + ends, name) for name in first)
    assert queries == [first[0], first[2], "a star"]
    type_queries(page, ["mine"])
    page.get_by_role("button", name="Draw samples").click()
    wait_for_images(page, 24)
    assert names_of(page.locator("#gallery img"))[12:] != first, "others than before"
    assert page.get_by_role("textbox", name="Queries").input_value() == "mine"


def test_clear_forgets_the_images(page: Page) -> None:
    page.get_by_role("button", name="Clear").click()

    expect(page.locator("#gallery li")).to_have_count(0)
    expect(page.locator("#status")).to_be_empty()
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#matches")).to_be_hidden()
    add_images(page, IMAGES)
    expect(page.locator("#images-for-texts section")).to_have_count(3)
