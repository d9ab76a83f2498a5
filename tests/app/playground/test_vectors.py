"""One vector: its numbers are the service's, and what is copied gets them again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.app.images import encode, plain_png, scene
from tests.app.playground.visit import Visit, add_images, open_view, type_queries
from tests.app.service_server import ServiceServer

NAME = 'it\'s a; "quoted" $name,.png'
TEXT = 'it\'s "red" \\ & $HOME <b>'
CONTENT = encode(scene(3))


@pytest.fixture
def page(visit: Visit) -> Page:
    """The view of vectors, of two images and a text with all that shells and HTML care for."""
    page = visit.open(permissions=["clipboard-read", "clipboard-write"])
    add_images(page, {NAME: CONTENT, "other.png": plain_png((1, 2, 3))})
    type_queries(page, [TEXT])
    open_view(page, "Vectors")
    return page


def vector_of(service: ServiceServer, **request: Any) -> list[float]:
    answer = service.client.post(**request).json()
    vector: list[float] = answer["data"][0]["embedding"]
    return vector


@pytest.fixture
def image_vector(service: ServiceServer) -> list[float]:
    return vector_of(service, url="/embed", content=CONTENT)


@pytest.fixture
def text_vector(service: ServiceServer) -> list[float]:
    return vector_of(service, url="/embed/text", json={"texts": [TEXT]})


def copy(page: Page, form: str) -> str:
    """Press the button, and return what the clipboard has."""
    page.get_by_label(form, exact=True).check()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copied")).to_have_text("Copied")
    copied: str = page.evaluate("navigator.clipboard.readText()")
    return copied


def test_the_numbers_are_those_of_the_service(
    page: Page, service: ServiceServer, image_vector: list[float], text_vector: list[float]
) -> None:
    space = service.client.get("/v1/models").json()["data"][0]["space"]
    for name, vector in ((NAME, image_vector), (f"“{TEXT}”", text_vector)):
        page.get_by_label("Vector of").select_option(label=name)
        shown = page.locator("#numbers").inner_text()
        first = json.loads(shown.replace(", …", ""))
        assert first == [pytest.approx(value, abs=0.000051) for value in vector[:8]]
        expect(page.locator("#space")).to_have_text(f"32 numbers of length 1, in the space {space}")
        copied = json.loads(copy(page, "JSON"))
        np.testing.assert_allclose(copied, vector, atol=1e-6, rtol=0)  # batches may differ


def test_curl_gets_the_vector(
    page: Page, tmp_path: Path, image_vector: list[float], text_vector: list[float]
) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    for name, vector in ((NAME, image_vector), (f"“{TEXT}”", text_vector)):
        page.get_by_label("Vector of").select_option(label=name)
        command = copy(page, "curl")
        printed = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True, timeout=60
        ).stdout
        assert json.loads(printed)["data"][0]["embedding"] == vector


def test_python_gets_the_vector(
    page: Page, tmp_path: Path, image_vector: list[float], text_vector: list[float]
) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    for name, vector in ((NAME, image_vector), (f"“{TEXT}”", text_vector)):
        page.get_by_label("Vector of").select_option(label=name)
        program = copy(page, "Python")
        printed = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        assert printed.decode() == f"32 {vector[:8]}\n"


def test_an_image_can_be_saved(page: Page) -> None:
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the image").click()
    assert Path(download.value.path()).read_bytes() == CONTENT
    page.get_by_label("Vector of").select_option(label=f"“{TEXT}”")
    expect(page.get_by_role("link", name="Save the image")).to_be_hidden()


def test_the_vector_follows_the_image_that_is_chosen(page: Page) -> None:
    subject = page.get_by_label("Vector of")
    subject.select_option(label=f"“{TEXT}”")
    page.get_by_role("button", name="other.png").click()
    expect(subject.locator("option:checked")).to_have_text("other.png")
    subject.select_option(label=f"“{TEXT}”")
    add_images(page, {"third.png": plain_png((9, 9, 9))})
    expect(subject.locator("option:checked")).to_have_text(f"“{TEXT}”")
