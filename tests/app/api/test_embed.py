"""POST /embed over a real socket: what comes back, and what is refused."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from app.settings import Settings
from tests.app.answers import (
    FORMS,
    check_error,
    cosines,
    embeddings,
    from_base64,
    post_images,
)
from tests.app.fake_embedder import (
    ENDS_THREAD,
    GIVES_HUGE,
    GIVES_INFINITE_PATCH,
    GIVES_NAN,
    GIVES_ZERO,
    RAISES,
    RESIZE_RAISES,
    SPACE,
    FakeEmbedder,
    expected_pooled,
)
from tests.app.images import NO_IMAGE, encode, plain, plain_png, png_claiming, truncated_jpeg
from tests.app.service_server import ServiceServer, run_service

COLOUR = (10, 20, 30)
BATCH_FORMS = ("multipart", "json")


@pytest.fixture
def gated() -> Iterator[tuple[ServiceServer, FakeEmbedder]]:
    """A service of its own, with room for four images, whose embedder can be held."""
    fake = FakeEmbedder(max_batch_size=2)
    settings = Settings(max_images=4, queue_images=4)
    with run_service(settings, fake) as service:
        yield service, fake
        fake.gate.set()


@pytest.mark.parametrize("form", FORMS)
def test_one_image_gets_its_raw_vector_in_every_form(server: ServiceServer, form: str) -> None:
    answer = post_images(server.client, form, [plain_png(COLOUR)], {"normalize": False})

    assert embeddings(answer).tolist() == [expected_pooled(COLOUR)]


def test_the_answer_has_the_shape_of_the_contract(server: ServiceServer) -> None:
    answer = post_images(server.client, "json", [plain_png(COLOUR, (9, 7))], {"normalize": False})

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-embedding-space"] == SPACE
    assert answer.json() == {
        "model": "fake/colours",
        "revision": "0" * 40,
        "space": SPACE,
        "dim": 4,
        "normalized": False,
        "encoding": "float",
        "dtype": "float32",
        "data": [
            {
                "index": 0,
                "id": None,
                "embedding": [10.0, 20.0, 30.0, 1.0],
                "image": {"width": 9, "height": 7, "format": "PNG"},
                "warnings": [],
            }
        ],
        "usage": {"images": 1, "failed": 0},
    }


@pytest.mark.parametrize("form", FORMS)
def test_pooled_vectors_are_normalised_unless_told_otherwise(
    server: ServiceServer, form: str
) -> None:
    answer = post_images(server.client, form, [plain_png(COLOUR)])

    (vector,) = embeddings(answer)
    assert answer.json()["normalized"] is True
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert cosines(vector, expected_pooled(COLOUR)) > 0.9999999


@pytest.mark.parametrize("form", BATCH_FORMS)
def test_many_images_keep_the_order_of_the_request(server: ServiceServer, form: str) -> None:
    colours = [(value, 2 * value, 5) for value in (50, 10, 90, 30, 70)]

    answer = post_images(
        server.client, form, [plain_png(colour) for colour in colours], {"normalize": False}
    )

    assert embeddings(answer).tolist() == [expected_pooled(colour) for colour in colours]
    assert [item["index"] for item in answer.json()["data"]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("form", FORMS)
def test_patches_alone_come_raw_and_without_a_pooled_vector(
    server: ServiceServer, form: str
) -> None:
    answer = post_images(server.client, form, [plain_png(COLOUR)], {"output": "patches"})

    (item,) = answer.json()["data"]
    assert "embedding" not in item
    assert item["patches"] == {
        "grid": [2, 2],
        "shape": [4, 4],
        "patch_size": 2,
        "input_size": [4, 4],
        "embedding": [[10.0, 20.0, 30.0, 2.0]] * 4,
    }


@pytest.mark.parametrize("form", FORMS)
def test_both_gives_pooled_and_patches_and_normalises_only_the_pooled(
    server: ServiceServer, form: str
) -> None:
    answer = post_images(server.client, form, [plain_png(COLOUR)], {"output": "both"})

    (item,) = answer.json()["data"]
    assert np.linalg.norm(item["embedding"]) == pytest.approx(1, abs=1e-6)
    assert item["patches"]["embedding"] == [[10.0, 20.0, 30.0, 2.0]] * 4


def test_pooled_answers_carry_no_patches(server: ServiceServer) -> None:
    (item,) = post_images(server.client, "raw", [plain_png(COLOUR)]).json()["data"]

    assert "patches" not in item


@pytest.mark.parametrize(("dtype", "little_endian"), [("float32", "<f4"), ("float16", "<f2")])
def test_base64_holds_the_numbers_of_the_dtype(
    server: ServiceServer, dtype: str, little_endian: str
) -> None:
    options = {"encoding": "base64", "dtype": dtype, "output": "both", "normalize": False}

    content = post_images(server.client, "json", [plain_png(COLOUR)], options).json()

    (item,) = content["data"]
    assert (content["encoding"], content["dtype"]) == ("base64", dtype)
    assert from_base64(item["embedding"], little_endian).tolist() == expected_pooled(COLOUR)
    patches = from_base64(item["patches"]["embedding"], little_endian)
    assert patches.reshape(item["patches"]["shape"]).tolist() == [[10.0, 20.0, 30.0, 2.0]] * 4


def test_float16_as_json_numbers_is_refused(server: ServiceServer) -> None:
    answer = post_images(server.client, "json", [plain_png(COLOUR)], {"dtype": "float16"})

    check_error(answer, 400, "invalid_parameter", "dtype")


def test_float16_refuses_a_value_outside_its_range(server: ServiceServer) -> None:
    options = {"dtype": "float16", "encoding": "base64", "normalize": False}

    answer = post_images(server.client, "json", [plain_png((GIVES_HUGE, 0, 0))], options)

    check_error(answer, 400, "invalid_parameter", "dtype")


def test_random_weights_are_named_in_every_items_warnings() -> None:
    with run_service(Settings(), FakeEmbedder(pretrained=False)) as service:
        answer = post_images(service.client, "json", [plain_png(COLOUR)] * 2)

    assert [item["warnings"] for item in answer.json()["data"]] == [["random_weights"]] * 2


def test_warnings_name_what_was_done_to_the_image(server: ServiceServer) -> None:
    half_clear = plain(COLOUR, (3, 20))
    half_clear.putalpha(128)

    answer = post_images(server.client, "raw", [encode(half_clear)])

    assert answer.json()["data"][0]["warnings"] == ["alpha_flattened", "upscaled"]


@pytest.mark.parametrize("form", FORMS)
def test_the_right_space_is_served(server: ServiceServer, form: str) -> None:
    answer = post_images(server.client, form, [plain_png(COLOUR)], {"expect_space": SPACE})

    assert answer.status_code == 200


@pytest.mark.parametrize("form", FORMS)
def test_another_space_is_refused_with_412(server: ServiceServer, form: str) -> None:
    answer = post_images(server.client, form, [plain_png(COLOUR)], {"expect_space": "other:123"})

    check_error(answer, 412, "space_mismatch", "expect_space")


BAD_IMAGES = {
    "no_image": (NO_IMAGE, 415, "unsupported_image_format"),
    "pdf": (b"%PDF-1.7 and so on", 415, "unsupported_image_format"),
    "format_not_allowed": (encode(plain(COLOUR), "BMP"), 415, "unsupported_image_format"),
    "empty": (b"", 415, "unsupported_image_format"),
    "truncated": (truncated_jpeg(), 422, "image_truncated"),
    "broken": (b"\xff\xd8\xff" + bytes(50), 422, "image_undecodable"),
    "too_many_pixels": (png_claiming(200, 200), 413, "image_too_large"),
    "bomb": (png_claiming(30_000, 30_000), 413, "image_too_large"),
    "too_long_a_side": (png_claiming(2_000, 1), 413, "image_too_large"),
    "too_many_bytes": (plain_png(COLOUR) + bytes(50_000), 413, "image_too_large"),
}


@pytest.mark.parametrize("form", BATCH_FORMS)
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_fails_its_request_and_is_named(
    server: ServiceServer, form: str, kind: str
) -> None:
    bad, status, code = BAD_IMAGES[kind]

    answer = post_images(server.client, form, [plain_png(COLOUR), bad])

    error = check_error(answer, status, code, "images[1]")
    assert error["message"].startswith("image 1: ")
    assert error["details"] == [{"index": 1, "code": code, "message": error["message"]}]


@pytest.mark.parametrize("form", BATCH_FORMS)
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_leaves_its_neighbours_untouched_when_partial(
    server: ServiceServer, form: str, kind: str
) -> None:
    bad, _, code = BAD_IMAGES[kind]
    images = [plain_png(COLOUR), bad, plain_png((1, 2, 3))]

    answer = post_images(server.client, form, images, {"on_error": "partial", "normalize": False})

    assert answer.status_code == 200
    first, failed, last = answer.json()["data"]
    assert first["embedding"] == expected_pooled(COLOUR)
    assert last["embedding"] == expected_pooled((1, 2, 3))
    assert failed.keys() == {"index", "id", "error"}
    assert (failed["index"], failed["error"]["code"]) == (1, code)
    assert failed["error"]["message"].startswith("image 1: ")
    assert answer.json()["usage"] == {"images": 3, "failed": 1}


def test_every_failed_image_is_in_the_details(server: ServiceServer) -> None:
    answer = post_images(server.client, "json", [NO_IMAGE, plain_png(COLOUR), truncated_jpeg()])

    error = check_error(answer, 415, "unsupported_image_format", "images[0]")
    assert [(item["index"], item["code"]) for item in error["details"]] == [
        (0, "unsupported_image_format"),
        (2, "image_truncated"),
    ]


@pytest.mark.parametrize("images", [[NO_IMAGE], [NO_IMAGE, truncated_jpeg(), NO_IMAGE]])
def test_partial_without_one_good_image_is_answered_like_any_other(
    server: ServiceServer, images: list[bytes]
) -> None:
    """The last batch of a job, or one that has bad images only, needs no code of its own."""
    answer = post_images(server.client, "multipart", images, {"on_error": "partial"})

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-embedding-space"] == answer.json()["space"]
    items = answer.json()["data"]
    codes = ["unsupported_image_format", "image_truncated", "unsupported_image_format"]
    assert [item["error"]["code"] for item in items] == codes[: len(images)]
    assert all(item.keys() == {"index", "id", "error"} for item in items)
    assert answer.json()["usage"] == {"images": len(images), "failed": len(images)}


@pytest.mark.parametrize("data", ["not base64!", "AAAA====", "QU-_?", "data:image/png,AAAA"])
def test_bad_base64_is_its_images_error(server: ServiceServer, data: str) -> None:
    good = base64.b64encode(plain_png(COLOUR)).decode()
    answer = server.client.post("/embed", json={"images": [good, data]})
    partial = server.client.post("/embed", json={"images": [good, data], "on_error": "partial"})

    check_error(answer, 400, "invalid_base64", "images[1]")
    assert partial.json()["data"][1]["error"]["code"] == "invalid_base64"


MODEL_FAULTS = [
    (RAISES, {}, "internal"),
    (RESIZE_RAISES, {}, "image_undecodable"),
    (GIVES_NAN, {}, "non_finite"),
    (GIVES_INFINITE_PATCH, {"output": "patches"}, "non_finite"),
    (GIVES_ZERO, {}, "non_finite"),
]


@pytest.mark.parametrize(("red", "options", "code"), MODEL_FAULTS)
def test_a_vector_that_cannot_be_had_fails_alone_when_partial(
    server: ServiceServer, red: int, options: dict[str, str], code: str
) -> None:
    images = [plain_png(COLOUR), plain_png((red, 0, 0)), plain_png((1, 2, 3))]

    answer = post_images(server.client, "json", images, {"on_error": "partial", **options})

    assert answer.status_code == 200, answer.text
    codes = [item.get("error", {}).get("code") for item in answer.json()["data"]]
    assert codes == [None, code, None]


@pytest.mark.parametrize(
    ("red", "options", "code"), [fault for fault in MODEL_FAULTS if fault[0] != RESIZE_RAISES]
)
def test_a_vector_that_cannot_be_had_is_a_500_that_names_its_image(
    server: ServiceServer, red: int, options: dict[str, str], code: str
) -> None:
    images = [plain_png(COLOUR), plain_png((red, 0, 0))]

    answer = post_images(server.client, "json", images, options)

    check_error(answer, 500, code, "images[1]")


def test_a_fault_of_the_model_is_its_images_error_also_when_no_other_is_left(
    server: ServiceServer,
) -> None:
    images = [plain_png((RAISES, 0, 0)), plain_png((GIVES_NAN, 0, 0)), NO_IMAGE]

    answer = post_images(server.client, "json", images, {"on_error": "partial"})

    assert answer.status_code == 200, answer.text
    codes = [item["error"]["code"] for item in answer.json()["data"]]
    assert codes == ["internal", "non_finite", "unsupported_image_format"]


@pytest.mark.parametrize("on_error", ["fail", "partial"])
def test_callers_of_a_dying_worker_are_told_to_come_back(on_error: str) -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        images = [plain_png(COLOUR), plain_png((ENDS_THREAD, 0, 0))]
        dying = post_images(service.client, "json", images, {"on_error": on_error})
        dead = post_images(service.client, "json", images, {"on_error": on_error})

    check_error(dead, 503, "worker_dead")
    check_error(dying, 503, "worker_dead", dying.json()["error"]["param"])


def test_a_full_queue_refuses_at_once_and_recovers(
    gated: tuple[ServiceServer, FakeEmbedder],
) -> None:
    service, fake = gated
    fake.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(post_images, service.client, "json", [plain_png(COLOUR)] * 4)
        fake.wait_until_entered()
        refused = post_images(service.client, "json", [plain_png(COLOUR)] * 2)
        ready = service.client.get("/readyz")
        fake.gate.set()
        assert held.result(30).status_code == 200
    after = post_images(service.client, "json", [plain_png(COLOUR)] * 4)

    check_error(refused, 429, "queue_full")
    assert ready.status_code == 200
    assert after.status_code == 200


def test_the_callers_patience_is_kept_and_frees_the_queue(
    gated: tuple[ServiceServer, FakeEmbedder],
) -> None:
    service, fake = gated
    fake.gate.clear()
    patience = {"X-Request-Timeout-Ms": "50"}
    images = [plain_png(COLOUR)] * 4

    first = post_images(service.client, "json", images, headers=patience)
    second = post_images(service.client, "json", images, headers=patience)
    fake.gate.set()
    third = post_images(service.client, "json", images)

    check_error(first, 504, "deadline_exceeded")
    check_error(second, 504, "deadline_exceeded")
    assert third.status_code == 200


def test_the_service_has_an_own_limit_of_patience() -> None:
    fake = FakeEmbedder()
    fake.gate.clear()
    with run_service(Settings(request_timeout_s=0.05), fake) as service:
        patience = {"X-Request-Timeout-Ms": "600000"}
        answer = post_images(service.client, "json", [plain_png(COLOUR)], headers=patience)
        fake.gate.set()

    check_error(answer, 504, "deadline_exceeded")


@pytest.mark.parametrize(
    "patience",
    ["0", "-1", "1.5", "soon", "", "1e3", "\u00b2"],
)
def test_patience_that_is_no_number_is_refused(server: ServiceServer, patience: str) -> None:
    answer = server.client.post(
        "/embed",
        content=plain_png(COLOUR),
        headers=[
            (b"Content-Type", b"image/png"),
            (b"X-Request-Timeout-Ms", patience.encode("latin-1")),
        ],
    )

    check_error(answer, 400, "invalid_parameter", "X-Request-Timeout-Ms")


@pytest.mark.parametrize("digits", [5, 20, 400, 5000])
def test_patience_without_end_is_cut_to_the_services_own_or_refused(
    server: ServiceServer, digits: int
) -> None:
    patience = {"X-Request-Timeout-Ms": "9" * digits}

    answer = post_images(server.client, "raw", [plain_png(COLOUR)], headers=patience)

    assert answer.status_code in (200, 400), answer.text


def test_server_timing_names_the_stages(server: ServiceServer) -> None:
    answer = post_images(server.client, "raw", [plain_png(COLOUR)])

    stages = [stage.partition(";dur=") for stage in answer.headers["server-timing"].split(", ")]
    assert [name for name, _, _ in stages] == ["decode", "queue", "forward", "serialize"]
    assert all(float(duration) >= 0 for _, _, duration in stages)


def test_an_answer_over_the_limit_is_refused_before_any_work() -> None:
    fake = FakeEmbedder()
    with run_service(Settings(max_response_bytes=5_000), fake) as service:
        small = post_images(service.client, "json", [plain_png(COLOUR)], {"output": "both"})
        refused = post_images(service.client, "json", [plain_png(COLOUR)] * 10, {"output": "both"})

    assert small.status_code == 200
    error = check_error(refused, 413, "response_too_large")
    assert "SIGLIP_MAX_RESPONSE_BYTES" in error["message"]
    assert fake.resized == 1


MARKER = "private-marker-6021"
MARKED_REQUESTS: list[dict[str, Any]] = [
    {"json": {"images": [MARKER]}},
    {"json": {"images": [f"data:{MARKER};base64,AAAA"]}},
    {"json": {"images": [{"url": f"https://{MARKER}/"}]}},
    {"json": {"images": MARKER}},
    {"json": {"images": [{"data": "AAAA", "id": [MARKER]}]}},
    {"json": {"images": [{"id": MARKER}]}},
    {"json": {"images": [{"data": MARKER, "url": MARKER}]}},
    {"json": {"images": ["AAAA"], "output": MARKER}},
    {"json": {"images": ["AAAA"], "normalize": MARKER}},
    {"json": {"images": ["AAAA"], "expect_space": MARKER}},
    {"json": {"images": ["AAAA"], "unknown": MARKER}},
    {"json": [MARKER]},
    {"json": {"images": []}, "params": {"output": MARKER}},
    {"content": f'{{"images": ["{MARKER}"', "headers": {"Content-Type": "application/json"}},
    {"content": MARKER, "headers": {"Content-Type": "image/png"}},
    {"content": MARKER, "headers": {"Content-Type": f"text/{MARKER}"}},
    {"content": MARKER, "headers": {"Content-Type": "image/png", "Accept": f"text/{MARKER}"}},
    {
        "content": "AAAA",
        "headers": {"Content-Type": "image/png", "X-Request-Timeout-Ms": MARKER},
    },
    {"content": "AAAA", "headers": {"Content-Type": "image/png"}, "params": {"dtype": MARKER}},
    {"files": {"images": (MARKER, MARKER.encode())}},
    {"files": {"images": ("a.png", b"AAAA")}, "data": {"encoding": MARKER}},
    {"files": {"images": ("a.png", b"AAAA")}, "data": {"id": [MARKER, MARKER]}},
    {"data": {"images": MARKER}, "files": {"other": ("a", b"")}},
    {
        "content": f"--x\r\n{MARKER}",
        "headers": {"Content-Type": f"multipart/form-data; boundary={MARKER}"},
    },
]


@pytest.mark.parametrize("request_arguments", MARKED_REQUESTS)
def test_no_input_is_echoed_in_an_error(
    server: ServiceServer, request_arguments: dict[str, Any]
) -> None:
    answer = server.client.post("/embed", **request_arguments)

    assert 400 <= answer.status_code < 500
    assert answer.json().keys() == {"error"}
    assert MARKER not in answer.text
    assert not any(MARKER in value for value in answer.headers.values())


def test_a_path_is_not_echoed_either(server: ServiceServer) -> None:
    answer = server.client.get(f"/{MARKER}")

    check_error(answer, 404, "not_found")
    assert MARKER not in answer.text


def test_a_client_that_leaves_does_not_disturb_the_others(
    gated: tuple[ServiceServer, FakeEmbedder],
) -> None:
    service, fake = gated
    fake.gate.clear()
    with pytest.raises(httpx.ReadTimeout):
        service.client.post(
            "/embed",
            content=plain_png(COLOUR),
            headers={"Content-Type": "image/png"},
            timeout=httpx.Timeout(30, read=0.2),
        )
    fake.gate.set()

    answer = post_images(service.client, "json", [plain_png(COLOUR)] * 3, {"normalize": False})

    assert embeddings(answer).tolist() == [expected_pooled(COLOUR)] * 3
