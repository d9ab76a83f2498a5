"""A browser, a service whose model takes images and texts, and visits to its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.settings import Settings
from tests.app.chromium import run_chromium
from tests.app.images import encode, scene
from tests.app.playground.visit import Visit
from tests.app.service_server import ServiceServer, run_service
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

IMAGES = {f"scene {seed}.png": encode(scene(seed)) for seed in range(4)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two towers: 8 by 8 patches, logit scale and bias."""
    folder = tmp_path_factory.mktemp("both-towers")
    write_full_checkpoint(folder, vocab_size=400, vision={"image_size": 64})
    write_siglip_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def service(_no_settings_from_outside: None, checkpoint: Path) -> Iterator[ServiceServer]:
    """A service of small limits."""
    settings = Settings(
        model=str(checkpoint),
        device="cpu",
        dtype="float32",
        max_images=5,
        max_image_bytes=30_000,
        max_body_bytes=50_000,
        max_text_bytes=400,
    )
    with run_service(settings) as server:
        server.wait_for_status("ok")
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with run_chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, service: ServiceServer) -> Iterator[Visit]:
    """A visit that must end without a problem."""
    visit = Visit(browser, service.url)
    yield visit
    for context in browser.contexts:
        context.close()
    assert not visit.problems
