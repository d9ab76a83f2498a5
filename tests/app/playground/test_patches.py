"""One image patch by patch: the drawings, and what is said of the patch that is chosen."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.app.playground.conftest import IMAGES
from tests.app.playground.visit import Visit, add_images, open_view, type_queries
from tests.app.service_server import ServiceServer

TEXT = "a red bicycle"
SIDE = 8  # patches of each row and column
READING = re.compile(
    r"row (\d), column (\d)(?: \(cosine (\S+)\))?"
    r" · most alike: row (\d), column (\d) \(cosine (\S+)\)"
)


@pytest.fixture
def page(visit: Visit) -> Page:
    """The patch view of the first of four images, with one text."""
    page = visit.open()
    add_images(page, IMAGES)
    type_queries(page, [TEXT])
    open_view(page, "Patches")
    expect(page.locator("#patch-view")).to_be_visible()
    return page


def patches_of(service: ServiceServer, name: str) -> np.ndarray:
    """Return the patch vectors of an image as unit rows, (64, dim)."""
    answer = service.client.post("/embed?output=patches", content=IMAGES[name]).json()
    patches = np.array(answer["data"][0]["patches"]["embedding"])
    return patches / np.linalg.norm(patches, axis=1, keepdims=True)


def pixels_of(canvas: Locator) -> np.ndarray:
    """Return the middles of a drawing's patches, float (64, 3)."""
    url: str = canvas.evaluate("canvas => canvas.toDataURL()")
    with Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        pixels = np.asarray(image.convert("RGB"), float)
    side = pixels.shape[0] // SIDE
    return pixels[side // 2 :: side, side // 2 :: side].reshape(-1, 3)


def read(page: Page) -> tuple[int, float | None, int, float]:
    """Return what is said: the patch and its cosine to a text, the one most alike and its own."""
    said = READING.fullmatch(page.locator("#patch-reading").inner_text())
    assert said
    row, column, own, best_row, best_column, best = said.groups()
    return (
        (int(row) - 1) * SIDE + int(column) - 1,
        None if own is None else float(own),
        (int(best_row) - 1) * SIDE + int(best_column) - 1,
        float(best),
    )


def check_alike(page: Page, patches: np.ndarray, patch: int) -> None:
    """Check what is said of a patch, and that its drawing is lit by likeness."""
    cosines = patches @ patches[patch]
    others = np.delete(cosines, patch)
    said, own, best, cosine = read(page)
    assert (said, own) == (patch, None)
    assert cosine == pytest.approx(others.max(), abs=0.00051)
    assert cosines[best] == pytest.approx(others.max(), abs=1e-5)
    check_lit(page, cosines)


def check_lit(page: Page, cosines: np.ndarray) -> None:
    """Check that the picture is darkened by what each patch lacks to the most alike."""
    lights = (cosines - cosines.min()) / (cosines.max() - cosines.min())
    seen = pixels_of(page.locator("#seen"))
    shadow = np.array([10, 12, 20])
    shares = 1 - 0.8 * (1 - lights)[:, None]
    lit = (seen - shadow) / shares + shadow
    picture = np.asarray(
        Image.open(BytesIO(IMAGES["scene 0.png"])).resize((480, 480), Image.Resampling.BILINEAR),
        float,
    )[30::60, 30::60].reshape(-1, 3)
    assert np.abs(lit - picture).mean() < 8


def test_patches_have_the_colours_of_their_first_components(
    page: Page, service: ServiceServer
) -> None:
    patches = patches_of(service, "scene 0.png")
    centred = patches - patches.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    components = centred @ axes[:3].T
    colours = pixels_of(page.locator("#components"))

    for channel, component in zip(colours.T, components.T, strict=True):
        assert (channel.min(), channel.max()) == (0, 255)
        assert abs(np.corrcoef(channel, component)[0, 1]) > 0.999


def test_the_image_is_squashed_to_the_grid(page: Page) -> None:
    sizes = [
        page.locator(f"#{name}").evaluate("canvas => [canvas.width, canvas.height]")
        for name in ("seen", "components")
    ]
    assert sizes == [[480, 480]] * 2  # of an image of 60 x 40


def test_a_patch_is_chosen_by_pointer(page: Page, service: ServiceServer) -> None:
    patches = patches_of(service, "scene 0.png")
    check_alike(page, patches, 4 * SIDE + 4)
    for name in ("seen", "components"):
        canvas = page.locator(f"#{name}")
        box = canvas.bounding_box()
        assert box
        step = box["width"] / SIDE
        canvas.hover(position={"x": 2.5 * step, "y": 6.5 * step})
        check_alike(page, patches, 6 * SIDE + 2)
        canvas.click(position={"x": 0.1 * step, "y": 0.1 * step})
        check_alike(page, patches, 0)


def test_a_patch_is_chosen_by_tapping(visit: Visit, service: ServiceServer) -> None:
    page = visit.open(has_touch=True, viewport={"width": 360, "height": 700})
    add_images(page, IMAGES)
    page.locator("#views").get_by_text("Patches").tap()
    canvas = page.locator("#components")
    expect(canvas).to_be_visible()
    box = canvas.bounding_box()
    assert box
    canvas.tap(position={"x": box["width"] * 0.99, "y": box["height"] * 0.2})
    check_alike(page, patches_of(service, "scene 0.png"), SIDE + 7)


def test_a_patch_is_chosen_by_keys_and_stays_inside(page: Page, service: ServiceServer) -> None:
    patches = patches_of(service, "scene 0.png")
    page.locator("#board").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    check_alike(page, patches, 5 * SIDE + 5)
    for key, patch in (("ArrowUp", 5), ("ArrowLeft", 0), ("ArrowDown", 56), ("ArrowRight", 63)):
        for _ in range(SIDE + 1):
            page.keyboard.press(key)
        check_alike(page, patches, patch)


def test_patches_are_compared_with_a_text(page: Page, service: ServiceServer) -> None:
    answer = service.client.post("/embed/text", json={"texts": [TEXT]}).json()
    cosines = patches_of(service, "scene 0.png") @ np.array(answer["data"][0]["embedding"])
    expect(page.locator("#rough")).to_be_hidden()
    page.get_by_label("Light up what is like").select_option(TEXT)

    expect(page.locator("#rough")).to_be_visible()
    patch, own, best, cosine = read(page)
    assert own == pytest.approx(cosines[patch], abs=0.00051)
    assert cosine == pytest.approx(cosines.max(), abs=0.00051)
    assert cosines[best] == pytest.approx(cosines.max(), abs=1e-5)
    check_lit(page, cosines)
    page.get_by_role("textbox", name="Queries").fill("another")
    expect(page.locator("#overlay option")).to_have_text(["the chosen patch", "“another”"])
    expect(page.get_by_label("Light up what is like")).to_have_value("")


def test_patches_are_asked_for_once_an_image(page: Page, visit: Visit) -> None:
    asked = visit.count("POST /embed")
    for name in ("scene 1.png", "scene 0.png", "scene 1.png"):
        page.get_by_role("button", name=name).click()
        expect(page.locator("#board")).to_have_attribute("aria-label", f"8 by 8 patches of {name}")
    assert visit.count("POST /embed") == asked + 1
