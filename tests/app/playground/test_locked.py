"""A service that asks for a key, with random weights and hence no texts."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from app.keys import ApiKeys
from app.settings import Settings
from tests.app.images import plain_png
from tests.app.playground.visit import Visit, open_view, pick_files
from tests.app.service_server import ServiceServer, run_service

KEY = "hush-hush"
IMAGE = plain_png((1, 9, 9))


@pytest.fixture(scope="module")
def random(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    """A service with random weights, hence without texts, that asks for a key."""
    settings = Settings(
        model="random:tiny-patch8-32",
        device="cpu",
        dtype="float32",
        api_keys=ApiKeys.of(KEY.encode()),
    )
    with run_service(settings) as server:
        server.wait_for_status("ok")
        yield server


def give_key(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use key").click()


def test_a_key_is_asked_for_used_and_kept_nowhere(visit: Visit, random: ServiceServer) -> None:
    visit.url = random.url
    page = visit.open()
    form = page.locator("#key-form")
    expect(page.get_by_label("API key")).to_be_focused()
    expect(page.locator("#key-reason")).to_contain_text("give a valid key")
    assert page.get_by_label("API key").get_attribute("type") == "password"
    pick_files(page, {"a.png": IMAGE})
    give_key(page, "wrong")
    expect(form).to_be_visible()
    visit.expect_refusal(401)

    give_key(page, KEY)
    expect(form).to_be_hidden()
    expect(page.locator("#status")).to_have_text("1 of 1 images")
    visit.expect_refusal(400)  # which says why there are no texts
    open_view(page, "Vectors")
    page.get_by_label("curl", exact=True).check()
    expect(page.locator("#code")).to_contain_text('-H "Authorization: Bearer $KEY"')
    page.get_by_label("Python", exact=True).check()
    expect(page.locator("#code")).to_contain_text('os.environ["KEY"]')
    kept = "[{...localStorage}, {...sessionStorage}, document.cookie, location.href]"
    assert KEY not in str(page.evaluate(kept)) + page.content()
    assert page.get_by_label("API key").input_value() == ""
    page.reload()
    expect(form).to_be_visible()
    visit.expect_refusal(401)


def test_random_weights_and_lacking_texts_are_told(visit: Visit, random: ServiceServer) -> None:
    visit.url = random.url
    page = visit.open()
    expect(page.locator("#random")).to_be_hidden()
    visit.expect_refusal(401)
    give_key(page, KEY)

    expect(page.locator("#random")).to_contain_text("Random weights.")
    expect(page.locator("#query-note")).to_have_text(
        "no texts here: random weights are of an image tower only"
    )
    expect(page.get_by_role("textbox", name="Queries")).to_be_disabled()
    visit.expect_refusal(400)
    page.get_by_role("button", name="Draw samples").click()
    expect(page.locator("#status")).to_have_text("12 of 12 images")
    assert "random" not in page.locator("#gallery").inner_text()
    assert page.get_by_role("textbox", name="Queries").input_value() == ""
