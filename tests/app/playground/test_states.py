"""What the page says of a service that is loading, busy, gone, or has less than others."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from app.settings import Settings
from tests.app.fake_embedder import FakeEmbedder, Headless
from tests.app.fake_text_embedder import FakeTextEmbedder, WithoutScale
from tests.app.gated_checkpoint import GatedCheckpoint
from tests.app.images import plain_png
from tests.app.playground.visit import (
    Visit,
    add_images,
    draw_samples,
    open_view,
    pick_files,
    type_queries,
)
from tests.app.service_server import ServiceServer, run_service

IMAGES = {f"{i}.png": plain_png((i, 9, 9)) for i in range(3)}


def test_a_trained_model_has_no_banner(visit: Visit, service: ServiceServer) -> None:
    page = visit.open()
    model = service.client.get("/v1/models").json()["data"][0]["id"]
    expect(page.locator("#model")).to_have_text(f"{model} · 32 numbers · float32 on cpu")
    expect(page.locator("#random")).to_be_hidden()
    expect(page.get_by_role("textbox", name="Queries")).to_be_enabled()


@pytest.fixture
def slow(visit: Visit) -> Iterator[tuple[ServiceServer, FakeEmbedder]]:
    """A service whose model waits for the test, and which lets one image wait."""
    embedder = FakeEmbedder(max_batch_size=1)
    with run_service(Settings(queue_images=1), embedder) as server:
        visit.url = server.url
        try:
            yield server, embedder
        finally:
            embedder.gate.set()


def test_a_busy_service_is_asked_again(
    visit: Visit, slow: tuple[ServiceServer, FakeEmbedder]
) -> None:
    server, embedder = slow
    page = visit.open()
    embedder.gate.clear()
    first = {"content": IMAGES["0.png"], "timeout": 60}
    other = threading.Thread(target=server.client.post, args=["/embed"], kwargs=first)
    other.start()
    embedder.wait_until_entered()
    pick_files(page, {"a.png": IMAGES["1.png"]})
    expect(page.locator("#status")).to_contain_text("too many images are waiting")
    expect(page.locator("#status")).to_contain_text("trying again in")
    expect(page.get_by_role("progressbar", name="Images embedded")).to_be_visible()
    embedder.gate.set()
    other.join()
    expect(page.locator("#status")).to_have_text("1 of 1 images")
    expect(page.locator("#gallery .error")).to_have_count(0)
    visit.expect_refusal(429)
    visit.expect_refusal(400)  # no texts here


def test_progress_is_shown_and_work_can_be_stopped(
    visit: Visit, slow: tuple[ServiceServer, FakeEmbedder]
) -> None:
    _, embedder = slow
    page = visit.open()
    add_images(page, {"done.png": plain_png((1, 1, 1))})
    embedder.gate.clear()
    pick_files(page, IMAGES)
    expect(page.locator("#status")).to_have_text("1 of 4 images")
    bar = page.locator("#progress progress")
    assert bar.evaluate("bar => [bar.value, bar.max]") == [1, 4]
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#gallery .error")).to_have_text(["stopped"] * 3)
    expect(page.locator("#progress")).to_be_hidden()
    embedder.gate.set()
    add_images(page, {"later.png": plain_png((2, 2, 2))})
    expect(page.locator("#status")).to_have_text("5 of 5 images, 3 not taken")
    visit.expect_refusal(400)  # no texts here


def test_a_loading_service_is_waited_for(visit: Visit, checkpoint: Path, tmp_path: Path) -> None:
    gated = GatedCheckpoint(checkpoint, tmp_path / "gated")
    settings = Settings(model=str(gated.folder), device="cpu", dtype="float32")
    with run_service(settings) as server:
        visit.url = server.url
        page = visit.open()
        pick_files(page, {"early.png": IMAGES["0.png"]})
        expect(page.locator("#status")).to_contain_text("trying again in")
        gated.open()
        expect(page.locator("#status")).to_have_text("1 of 1 images")
    visit.expect_refusal(503)


@pytest.mark.parametrize("missing", ["logit_scale", "logit_bias"])
def test_without_scale_or_bias_there_are_cosines_only(visit: Visit, missing: str) -> None:
    texts = WithoutScale(missing=missing)
    with run_service(Settings(), FakeEmbedder(), texts=texts) as server:
        visit.url = server.url
        page = visit.open()
        add_images(page, IMAGES)
        type_queries(page, ["ant"])
        scores = page.locator(".score").all_text_contents()
    assert len(scores) == 4
    assert all(re.fullmatch(r" cos -?\d\.\d{3}", score) for score in scores)


def test_a_model_without_pooling_head_has_its_patches_shown(visit: Visit) -> None:
    with run_service(Settings(), Headless(), texts=FakeTextEmbedder()) as server:
        visit.url = server.url
        page = visit.open()
        expect(page.locator("#model")).to_contain_text("4 numbers, of patches only")
        add_images(page, IMAGES)
        expect(page.locator("#board")).to_have_attribute("aria-label", "2 by 2 patches of 0.png")
        assert visit.count("POST /embed") == 1
        expect(page.locator("#views input:enabled")).to_have_count(1)


def test_behind_a_proxy_the_page_may_be_anywhere(visit: Visit, service: ServiceServer) -> None:
    def strip(route: Route) -> None:
        answer = route.fetch(url=route.request.url.replace("/deep/down/", "/"))
        route.fulfill(response=answer)

    visit.url = f"{service.url}/deep/down"
    page = visit.open(lambda context: context.route("**/deep/down/**", strip))
    draw_samples(page)
    open_view(page, "Vectors")
    page.get_by_label("curl", exact=True).check()
    expect(page.locator("#code")).to_contain_text(f"curl {visit.url}/embed ")
    assert all(request.split()[1].startswith("/deep/down/") for request in visit.asked)


def test_vectors_of_two_models_never_meet(visit: Visit, service: ServiceServer) -> None:
    """As when the service was started anew with another model while the page was open."""

    def recall_another(route: Route) -> None:
        model = route.fetch().json()["data"][0] | {"space": "other:0123456789ab"}
        route.fulfill(json={"data": [model]})

    page = visit.open(lambda context: context.route("**/v1/models", recall_another))
    add_images(page, {"a.png": IMAGES["0.png"]})
    space = service.client.get("/v1/models").json()["data"][0]["space"]
    expect(page.locator("#gallery .error")).to_have_text([f"the space here is {space}"])
    page.get_by_role("textbox", name="Queries").fill("ant")
    expect(page.locator("#query-note")).to_have_text(f"the space here is {space}")
    visit.expect_refusal(412)


def test_a_service_that_is_gone_is_told_of(visit: Visit) -> None:
    with run_service(Settings(), FakeEmbedder()) as server:
        visit.url = server.url
        page = visit.open()
        expect(page.locator("#query-note")).not_to_be_empty()
    add_images(page, {"late.png": IMAGES["0.png"]})
    expect(page.locator("#gallery .error")).to_have_text(["The service does not answer."])
    visit.expect_refusal(400)  # no texts here
    assert visit.problems == ["Failed to load resource: net::ERR_CONNECTION_REFUSED"]
    visit.problems.clear()
