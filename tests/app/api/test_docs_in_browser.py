"""The page /docs in Chromium, as a person uses it: its button sends requests that are answered.

Without Chromium these tests are skipped; with REQUIRE_CHROMIUM=1 they fail instead.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, sync_playwright

from app.keys import ApiKeys
from app.settings import Settings
from tests.app.images import encode, plain_png, scene
from tests.app.service_server import ServiceServer, run_service

KEY = "hush"
IMAGES = {"a.png": plain_png((10, 20, 30)), "b.jpg": encode(scene(0), "JPEG")}
# No display, no rights to shed, no talk with anybody but the service.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_WAIT_MS = 30_000


@pytest.fixture(scope="module")
def locked(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    """A service with a key and a real model."""
    settings = Settings(
        model="random:tiny-patch8-32",
        device="cpu",
        dtype="float32",
        api_keys=ApiKeys.of(KEY.encode()),
    )
    with run_service(settings) as service:
        service.wait_for_status("ok")
        yield service


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a browser that was never used."""
    chromium = shutil.which("chromium")
    if chromium is None and os.environ.get("REQUIRE_CHROMIUM") == "1":
        pytest.fail("REQUIRE_CHROMIUM=1, but there is no chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    profile = tmp_path_factory.mktemp("chromium")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=FLAGS, timeout=_WAIT_MS
        ) as browser,
    ):
        browser.set_default_timeout(_WAIT_MS)
        yield browser.pages[0]


@pytest.fixture
def embed(locked: ServiceServer, page: Page) -> Locator:
    """POST /embed on the page, opened to be tried out; the way there is the root, without a key."""
    page.goto(locked.url)
    route = page.locator(".opblock-post", has=page.get_by_text("/embed", exact=True))
    route.locator(".opblock-summary-control").click()
    route.get_by_role("button", name="Try it out").click()
    return route


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
    """Press the button; return the status and the body that the page shows."""
    embed.get_by_role("button", name="Execute").click()
    answer = embed.locator(".live-responses-table .response")
    status = answer.locator(".response-col_status").inner_text().split()[0]
    return status, answer.locator(".highlight-code, .microlight").first.inner_text()


@pytest.mark.parametrize(
    ("media_type", "names"),
    [
        ("application/json", []),  # the example that the page holds
        ("multipart/form-data", ["a.png", "b.jpg"]),
        ("image/*", ["b.jpg"]),
    ],
)
def test_what_is_tried_out_is_embedded(
    page: Page, embed: Locator, tmp_path: Path, media_type: str, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(IMAGES[name])
    authorize(page)
    choose(embed, media_type, [tmp_path / name for name in names])
    status, body = execute(embed)

    assert status == "200", body
    assert '"embedding": [' in body
    assert f'"images": {len(names) or 2}' in body


def test_an_option_of_the_query_goes_with_json(page: Page, embed: Locator) -> None:
    authorize(page)
    embed.locator("tr[data-param-name=output] select").select_option("patches")
    choose(embed, "application/json", [])
    status, body = execute(embed)

    assert status == "200", body
    assert '"grid": [' in body


def test_without_a_key_the_page_shows_the_refusal(embed: Locator) -> None:
    choose(embed, "application/json", [])
    status, body = execute(embed)

    assert status == "401"
    assert '"invalid_api_key"' in body
