"""The page /docs in Chromium, as a person uses it: what its button sends is embedded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from tests.app.api.conftest import KEY
from tests.app.chromium import run_chromium
from tests.app.images import encode, plain_png, scene
from tests.app.service_server import ServiceServer

IMAGES = {"a.png": plain_png((10, 20, 30)), "b.jpg": encode(scene(0), "JPEG")}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a browser that was never used."""
    with run_chromium() as browser:
        yield browser.new_page()


def open_embed(page: Page, url: str) -> Locator:
    """Go to POST /embed on the page, and have it tried out."""
    page.goto(f"{url}/docs")
    embed = page.locator(".opblock-post", has=page.get_by_text("/embed", exact=True))
    embed.locator(".opblock-summary-control").click()
    embed.get_by_role("button", name="Try it out").click()
    return embed


def authorize(page: Page) -> None:
    page.locator(".auth-wrapper .authorize").click()
    page.locator(".auth-container input").fill(KEY)
    page.locator(".auth-container button[type=submit]").click()
    page.locator(".auth-container .btn-done").click()


def choose(embed: Locator, media_type: str, files: list[Path]) -> None:
    """Choose a form of body, and one file after the other."""
    body = embed.locator(".opblock-section-request-body")
    body.locator("select.content-type").select_option(media_type)
    for index, file in enumerate(files):
        if index:
            body.get_by_role("button", name="Add string item").first.click()
        body.locator("input[type=file]").nth(index).set_input_files(file)


def execute(embed: Locator) -> tuple[str, str]:
    """Press the button; return the status and the body that the page shows, and clear them."""
    embed.get_by_role("button", name="Execute").click()
    answer = embed.locator(".live-responses-table .response")
    status = answer.locator(".response-col_status").inner_text().split()[0]
    body = answer.locator(".highlight-code, .microlight").first.inner_text()
    embed.get_by_role("button", name="Clear").click()
    return status, body


def test_what_is_tried_out_is_embedded(locked: ServiceServer, page: Page, tmp_path: Path) -> None:
    """One visit, because it is the page's loading that takes long."""
    for name, content in IMAGES.items():
        (tmp_path / name).write_bytes(content)
    png, jpeg = (tmp_path / name for name in IMAGES)
    embed = open_embed(page, locked.url)

    choose(embed, "application/json", [])  # the example that the page holds: two images
    assert execute(embed)[0] == "401"
    authorize(page)
    check_embedded(execute(embed), images=2)
    in_query = embed.locator("tr[data-param-name=output] select")
    in_query.select_option("patches")
    status, body = execute(embed)
    assert status == "200", body
    assert '"grid": [' in body
    in_query.select_option("")
    choose(embed, "multipart/form-data", [png, jpeg])
    check_embedded(execute(embed), images=2)
    choose(embed, "image/*", [jpeg])
    check_embedded(execute(embed), images=1)


def check_embedded(shown: tuple[str, str], images: int) -> None:
    status, body = shown
    assert status == "200", body
    assert body.count('"embedding": [') == images
