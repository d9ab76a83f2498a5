"""Answers in the form that the Accept header asks for, over a real socket."""

from dataclasses import replace
from io import BytesIO

import httpx
import numpy as np
import pytest

from app.api.embed import render_images
from app.api.render import estimate_answer_bytes
from app.api.schemas import MAX_ID_LENGTH, EmbedOptions
from app.engine.forward import OwnVectors
from app.engine.preparing import SeenImage
from app.engine.service import EmbeddedImage
from tests.app.answers import check_error, post_images
from tests.app.fake_embedder import FakeEmbedder, expected_pooled
from tests.app.images import NO_IMAGE, plain_png
from tests.app.service_server import ServiceServer

COLOURS = [(10, 20, 30), (40, 50, 60)]
PNGS = [plain_png(colour) for colour in COLOURS]
NPY, BYTES = "application/x-npy", "application/octet-stream"


def ask(server: ServiceServer, accept: str, **options: object) -> httpx.Response:
    """Send two images and ask for the answer in a form."""
    return post_images(server.client, "json", PNGS, options, {"Accept": accept})


def array_of(answer: httpx.Response) -> np.ndarray:
    """Read the array of a binary answer by what its own headers say."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == NPY:
        array: np.ndarray = np.load(BytesIO(answer.content), allow_pickle=False)
        return array
    shape = [int(side) for side in answer.headers["x-embedding-shape"].split(",")]
    dtype = np.dtype(answer.headers["x-embedding-dtype"]).newbyteorder("<")
    return np.frombuffer(answer.content, dtype).reshape(shape)


@pytest.mark.parametrize("accept", [NPY, BYTES])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_binary_answer_is_one_array_of_pooled_vectors(
    server: ServiceServer, accept: str, dtype: str
) -> None:
    answer = ask(server, accept, dtype=dtype, normalize=False)

    array = array_of(answer)
    assert answer.headers["content-type"] == accept
    assert answer.headers["x-embedding-shape"] == "2,4"
    assert answer.headers["x-embedding-dtype"] == dtype
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.tolist() == [expected_pooled(colour) for colour in COLOURS]


@pytest.mark.parametrize("accept", [NPY, BYTES])
def test_a_binary_answer_of_patches_has_three_dimensions(
    server: ServiceServer, accept: str
) -> None:
    answer = ask(server, accept, output="patches")

    assert answer.headers["x-embedding-shape"] == "2,4,4"
    assert array_of(answer).tolist() == [[[*map(float, colour), 2.0]] * 4 for colour in COLOURS]


@pytest.mark.parametrize("accept", [NPY, BYTES])
def test_a_binary_answer_is_normalised_like_json(server: ServiceServer, accept: str) -> None:
    in_json = [item["embedding"] for item in ask(server, "application/json").json()["data"]]

    assert array_of(ask(server, accept)).tolist() == np.asarray(in_json, np.float32).tolist()


def test_a_binary_answer_keeps_its_space_and_timings(server: ServiceServer) -> None:
    headers = ask(server, NPY).headers

    assert headers["x-embedding-space"].startswith("fake:")
    assert "forward;dur=" in headers["server-timing"]


@pytest.mark.parametrize("accept", [NPY, BYTES])
def test_pooled_and_patches_cannot_be_one_array(server: ServiceServer, accept: str) -> None:
    check_error(ask(server, accept, output="both"), 406, "not_acceptable", "output")


def test_output_both_as_an_array_is_refused_whatever_the_images_are(
    server: ServiceServer,
) -> None:
    answer = post_images(server.client, "json", [NO_IMAGE], {"output": "both"}, {"Accept": NPY})

    check_error(answer, 406, "not_acceptable", "output")


@pytest.mark.parametrize("accept", [NPY, BYTES])
def test_a_binary_answer_fails_whole_even_when_partial_is_asked_for(
    server: ServiceServer, accept: str
) -> None:
    answer = post_images(
        server.client, "json", [*PNGS, NO_IMAGE], {"on_error": "partial"}, {"Accept": accept}
    )

    check_error(answer, 415, "unsupported_image_format", "images[2]")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("text/html, */*;q=0.1", "application/json"),
        ("text/html, application/x-npy", NPY),
        ("application/x-npy;q=0.5, application/json;q=0.4", NPY),
        ("application/x-npy;q=0.4, application/json;q=0.5", "application/json"),
        ("application/octet-stream;q=1, application/x-npy;q=0.9", BYTES),
        ("application/x-npy; q=0, application/json", "application/json"),
        ("application/x-npy, */*;q=0.9", NPY),
        ("application/x-npy;q=1.0;v=2", NPY),
        ("application/json;version=1;q=0, */*", "application/json"),
        # What clients send of themselves: axios, HTTPie, a browser, Java's two, Spring for bytes.
        ("application/json, text/plain, */*", "application/json"),
        ("application/json, */*;q=0.5", "application/json"),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            "application/json",
        ),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/json"),
        ("text/html, image/gif, image/jpeg, *; q=.2", "application/json"),
        ("*", "application/json"),
        ("application/json, application/*+json", "application/json"),
        ("application/octet-stream, */*", "application/json"),
        ("application/json;q=0;v=2, application/x-npy;v=1;q=0, */*", NPY),
    ],
)
def test_the_form_of_highest_quality_is_chosen(
    server: ServiceServer, accept: str, content_type: str
) -> None:
    assert ask(server, accept).headers["content-type"] == content_type


def test_no_accept_header_means_json(server: ServiceServer) -> None:
    request = server.client.build_request("POST", "/embed", files={"images": ("a", PNGS[0])})
    del request.headers["accept"]

    assert server.client.send(request).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "image/*",
        "application/json;q=0",
        "application/xml, text/*;q=0.5",
        "application/x-npy;q=nonsense",
        "nonsense",
    ],
)
def test_a_form_that_there_is_not_is_refused(server: ServiceServer, accept: str) -> None:
    error = check_error(ask(server, accept), 406, "not_acceptable")

    for form in ("application/json", NPY, BYTES):
        assert form in error["message"]


def test_a_form_that_is_ruled_out_is_not_chosen_through_a_wildcard(
    server: ServiceServer,
) -> None:
    answer = ask(server, "application/json;q=0, */*")

    assert answer.headers["content-type"] in (NPY, BYTES)


def test_accept_headers_of_several_lines_are_one_list(server: ServiceServer) -> None:
    request = server.client.build_request("POST", "/embed", files={"images": ("a", PNGS[0])})
    del request.headers["accept"]
    lines = [("Accept", "text/html"), ("Accept", NPY)]
    request.headers = httpx.Headers([*request.headers.multi_items(), *lines])

    assert server.client.send(request).headers["content-type"] == NPY


def test_errors_are_json_whatever_was_asked_for(server: ServiceServer) -> None:
    answer = post_images(server.client, "json", [NO_IMAGE], headers={"Accept": NPY})

    check_error(answer, 415, "unsupported_image_format", "images[0]")


LONG_ID = "\x01" * MAX_ID_LENGTH  # six bytes of JSON each


@pytest.mark.parametrize("output", ["pooled", "patches", "both"])
@pytest.mark.parametrize(
    ("encoding", "dtype"), [("float", "float32"), ("base64", "float32"), ("base64", "float16")]
)
def test_the_estimate_of_an_answers_size_is_never_too_small(
    output: str, encoding: str, dtype: str
) -> None:
    options = EmbedOptions.model_validate(
        {"output": output, "encoding": encoding, "dtype": dtype, "normalize": False}
    )
    info = replace(FakeEmbedder().info, dim=96, max_patches=64)
    # The longest that a float32 can be in JSON.
    vectors = np.full((1 + info.max_patches, info.dim), -1.2345678e-38, np.float32)
    seen = SeenImage(16384, 16384, "JPEG", ("exif_rotated", "alpha_flattened"), (8, 8))
    images = [EmbeddedImage(OwnVectors(vectors[0], vectors[1:]), seen)] * 2

    answer = render_images(images, [LONG_ID] * 2, options, "json", info)
    estimate = estimate_answer_bytes(options, "json", info, 2)
    assert len(answer.body) <= estimate
    assert estimate <= len(answer.body) + 2 * 2**12

    if output != "both":
        array = render_images(images, [None] * 2, options, "octet-stream", info)
        assert len(array.body) == estimate_answer_bytes(options, "octet-stream", info, 2)
