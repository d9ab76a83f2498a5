"""The page /docs in Chromium, as a person uses it: what its button sends is embedded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from app.api.adapters import ADAPTERS
from app.settings import Settings
from tests.app.api.conftest import KEY
from tests.app.chromium import run_chromium
from tests.app.images import encode, plain_png, scene
from tests.app.service_server import ServiceServer, run_service
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

IMAGES = {"a.png": plain_png((10, 20, 30)), "b.jpg": encode(scene(0), "JPEG")}
# How many files a form of a body takes here.
FILES = {"multipart/form-data": 2, "image/*": 1, "application/octet-stream": 1}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a browser that was never used."""
    with run_chromium() as browser:
        yield browser.new_page()


def open_route(page: Page, path: str) -> Locator:
    """Open a route on the page, and have it tried out."""
    route = page.locator(".opblock", has=page.locator(f'[data-path="{path}"]'))
    route.locator(".opblock-summary-control").click()
    route.get_by_role("button", name="Try it out").click()
    return route


def authorize(page: Page) -> None:
    page.locator(".auth-wrapper .authorize").click()
    page.locator(".auth-container input").fill(KEY)
    page.locator(".auth-container button[type=submit]").click()
    page.locator(".auth-container .btn-done").click()


def choose(route: Locator, media_type: str, files: list[Path]) -> None:
    """Choose a form of body, and one file after the other."""
    body = route.locator(".opblock-section-request-body")
    body.locator("select.content-type").select_option(media_type)
    for index, file in enumerate(files):
        if index:
            body.get_by_role("button", name="Add string item").first.click()
        body.locator("input[type=file]").nth(index).set_input_files(file)


def execute(route: Locator) -> tuple[str, str]:
    """Press the button; return the status and the body that the page shows, and clear them."""
    route.get_by_role("button", name="Execute").click()
    answer = route.locator(".live-responses-table .response")
    status = answer.locator(".response-col_status").inner_text().split()[0]
    body = answer.locator(".highlight-code, .microlight").first.inner_text()
    route.get_by_role("button", name="Clear").click()
    return status, body


def test_what_is_tried_out_is_embedded(locked: ServiceServer, page: Page, tmp_path: Path) -> None:
    """One visit, because it is the page's loading that takes long."""
    for name, content in IMAGES.items():
        (tmp_path / name).write_bytes(content)
    png, jpeg = (tmp_path / name for name in IMAGES)
    page.goto(f"{locked.url}/docs")
    embed = open_route(page, "/embed")

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


@pytest.fixture(scope="module")
def whole(
    _no_settings_from_outside: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceServer]:
    """A service with every route, and texts."""
    folder = tmp_path_factory.mktemp("published") / "siglip-base-patch16-224"
    folder.mkdir()
    write_siglip_tokenizer(folder)
    write_full_checkpoint(folder, vocab_size=400)
    settings = Settings(
        model=str(folder), device="cpu", dtype="float32", adapters=frozenset(ADAPTERS)
    )
    with run_service(settings) as service:
        service.wait_for_status("ok")
        yield service


def test_every_route_answers_when_its_button_is_pressed(
    whole: ServiceServer, page: Page, tmp_path: Path
) -> None:
    """As the page stands, with its own examples; only files are chosen, and labels beside one."""
    for name, content in IMAGES.items():
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / name for name in IMAGES]
    page.goto(f"{whole.url}/docs")
    statuses = {}
    for path, methods in whole.client.get("/openapi.json").json()["paths"].items():
        ((_, operation),) = methods.items()
        route = open_route(page, path)
        for form in operation.get("requestBody", {"content": [""]})["content"]:
            if form:
                choose(route, form, files[: FILES.get(form, 0)])
            if path == "/classify" and form == "image/*":
                labels = route.locator("tr[data-param-name=labels]")
                labels.get_by_role("button", name="Add string item").click()
                labels.locator("input[type=text]").fill("a cat")
            statuses[path, form] = execute(route)[0]
        route.locator(".opblock-summary-control").click()  # each open one makes the page slower

    assert {*statuses.values()} == {"200"}, statuses
    assert len(statuses) >= 20
