"""Formats that a service takes where its settings name them, and says how to allow where not."""

from collections.abc import Iterator

import pytest

from app.settings import Settings
from tests.app.answers import check_error, post_images
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import encode, scene
from tests.app.service_server import ServiceServer, run_service

ON_REQUEST = ["TIFF", "HEIC"]


@pytest.fixture(scope="module")
def asked_for(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    settings = Settings(formats=frozenset({"tiff", "heic"}))
    with run_service(settings, FakeEmbedder()) as service:
        yield service


@pytest.fixture(scope="module")
def by_default(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    with run_service(Settings(), FakeEmbedder()) as service:
        yield service


@pytest.mark.parametrize("image_format", ON_REQUEST)
@pytest.mark.parametrize("form", ["raw", "multipart", "json"])
def test_a_format_that_is_named_is_taken(
    asked_for: ServiceServer, form: str, image_format: str
) -> None:
    answer = post_images(asked_for.client, form, [encode(scene(1), image_format)])

    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["data"]
    assert item["image"] == {"width": 60, "height": 40, "format": image_format}


@pytest.mark.parametrize("image_format", ON_REQUEST)
def test_one_that_is_not_is_told_how_to_be_allowed(
    by_default: ServiceServer, image_format: str
) -> None:
    answer = post_images(by_default.client, "raw", [encode(scene(1), image_format)])

    error = check_error(answer, 415, "unsupported_image_format", "images[0]")
    assert f"this is {image_format}: convert it, or allow it by SIGLIP_FORMATS" in error["message"]
