"""The three forms of a request, read over a real socket."""

import base64
from typing import Any

import httpx
import pytest

from tests.app.answers import check_error, embeddings, post_images
from tests.app.fake_embedder import expected_pooled
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer

COLOUR = (10, 20, 30)
PNG = plain_png(COLOUR)
TEXT = base64.b64encode(PNG).decode()


def ids_of(answer: httpx.Response) -> list[str | None]:
    """Return the ids of an answer's items."""
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["data"]]


def send_json(server: ServiceServer, content: Any, **params: str) -> httpx.Response:
    """POST JSON to /embed."""
    return server.client.post("/embed", json=content, params=params)


def send_form(
    server: ServiceServer, files: list[tuple[str, Any]], fields: dict[str, Any] | None = None
) -> httpx.Response:
    """POST a multipart form to /embed."""
    return server.client.post("/embed", files=files, data=fields or {})


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "IMAGE/PNG", "image/x-unknown", "application/octet-stream; a=b"],
)
def test_a_raw_body_is_read_by_its_bytes_and_not_by_its_type(
    server: ServiceServer, content_type: str
) -> None:
    answer = server.client.post("/embed", content=PNG, headers={"Content-Type": content_type})

    assert answer.json()["data"][0]["image"]["format"] == "PNG"


def test_a_raw_body_takes_its_options_and_id_from_the_query(server: ServiceServer) -> None:
    options = {"output": "patches", "id": "sku-1"}

    answer = post_images(server.client, "raw", [PNG], options)

    assert ids_of(answer) == ["sku-1"]
    assert answer.json()["data"][0].keys() == {"index", "id", "image", "patches", "warnings"}


def test_an_empty_raw_body_holds_no_image(server: ServiceServer) -> None:
    check_error(post_images(server.client, "raw", [b""]), 400, "no_images")


@pytest.mark.parametrize("field", ["images", "image", "files", "file"])
def test_every_usual_name_of_a_file_field_is_taken(server: ServiceServer, field: str) -> None:
    answer = send_form(server, [(field, ("a.png", PNG)), (field, ("b.png", PNG))])

    assert len(answer.json()["data"]) == 2


def test_ids_of_a_form_are_its_id_fields_in_order(server: ServiceServer) -> None:
    files = [("images", ("a.png", PNG)), ("file", ("b.png", PNG))]

    assert ids_of(send_form(server, files, {"id": ["first", "second"]})) == ["first", "second"]


@pytest.mark.parametrize("ids", [["one"], ["one", "two", "three"]])
def test_a_form_has_an_id_for_every_image_or_none(server: ServiceServer, ids: list[str]) -> None:
    files = [("images", ("a.png", PNG)), ("images", ("b.png", PNG))]

    check_error(send_form(server, files, {"id": ids}), 400, "invalid_parameter", "id")


def test_a_form_takes_options_from_fields_and_query(server: ServiceServer) -> None:
    answer = server.client.post(
        "/embed?output=both", files={"image": ("a.png", PNG)}, data={"normalize": "false"}
    )

    assert embeddings(answer).tolist() == [expected_pooled(COLOUR)]
    assert "patches" in answer.json()["data"][0]


def test_an_unknown_file_field_is_named(server: ServiceServer) -> None:
    error = check_error(
        send_form(server, [("picture", ("a.png", PNG))]), 400, "unknown_parameter", "picture"
    )

    assert "images, image, files or file" in error["message"]


def test_an_unknown_field_is_named_and_what_there_is(server: ServiceServer) -> None:
    answer = send_form(server, [("images", ("a.png", PNG))], {"size": "3"})

    error = check_error(answer, 400, "unknown_parameter", "size")
    assert "normalize, encoding, dtype, expect_space, output, on_error, id" in error["message"]


def test_an_image_field_that_is_no_file_is_refused(server: ServiceServer) -> None:
    answer = server.client.post(
        "/embed",
        content=b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\ntext\r\n--b--\r\n',
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )

    check_error(answer, 400, "invalid_parameter", "images")


def test_a_form_without_files_holds_no_image(server: ServiceServer) -> None:
    answer = server.client.post(
        "/embed",
        content=b'--b\r\nContent-Disposition: form-data; name="output"\r\n\r\nboth\r\n--b--\r\n',
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )

    check_error(answer, 400, "no_images")


BROKEN_FORMS = {
    "no_boundary": ("multipart/form-data", b"--b\r\n\r\n--b--"),
    "empty_boundary": ('multipart/form-data; boundary=""', b"--\r\n\r\n----"),
    "no_line_end": ("multipart/form-data; boundary=b", b"--bX--b--"),
    "no_end": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        + PNG
        + b"\r\n",
    ),
    "other_boundary": ("multipart/form-data; boundary=a", b"--b\r\n\r\nx\r\n--b--\r\n"),
    "no_form_at_all": ("multipart/form-data; boundary=b", PNG),
    "no_name": (
        "multipart/form-data; boundary=b",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
    ),
    "no_disposition": (
        "multipart/form-data; boundary=b",
        b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n",
    ),
    "latin1_id": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\ncaf\xe9\r\n--b--\r\n',
    ),
    "latin1_name": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="caf\xe9"\r\n\r\nx\r\n--b--\r\n',
    ),
    "latin1_name_of_a_file": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="\xe9"; filename="a"\r\n\r\n'
        + PNG
        + b"\r\n--b--\r\n",
    ),
    "long_boundary": ("multipart/form-data; boundary=" + "b" * 300, b"--b--"),
    "long_field": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="output"\r\n\r\n'
        + b"x" * 70_000
        + b"\r\n--b--\r\n",
    ),
}


BROKEN_FORM_WORDS = {
    "no_boundary": "names no boundary",
    "empty_boundary": "names no boundary",
    "no_end": "closing boundary",
    "other_boundary": "no such boundary",
    "no_form_at_all": "no such boundary",
    "no_name": 'name="images"',
    "no_disposition": 'name="images"',
    "latin1_id": "UTF-8",
    "latin1_name": "UTF-8",
    "latin1_name_of_a_file": "UTF-8",
    "long_boundary": "256 bytes",
    "long_field": "the field output is over 65536 bytes",
    "no_line_end": "taken apart",
}


@pytest.mark.parametrize("kind", BROKEN_FORMS)
def test_a_broken_form_is_refused(server: ServiceServer, kind: str) -> None:
    content_type, body = BROKEN_FORMS[kind]

    answer = server.client.post("/embed", content=body, headers={"Content-Type": content_type})

    error = check_error(answer, 400, "invalid_multipart")
    assert BROKEN_FORM_WORDS[kind] in error["message"]


def test_a_file_may_be_called_anything(server: ServiceServer) -> None:
    """Its name is not used, and some clients write it as their disk does."""
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="caf\xe9"\r\n\r\n'
    answer = server.client.post(
        "/embed",
        content=head + PNG + b"\r\n--b--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("query", ["id=%ff", "%e9=1", "output=pooled&id=caf%E9", "id=%ED%A0%80"])
def test_a_query_that_is_not_utf8_is_refused(server: ServiceServer, query: str) -> None:
    for body in ({"content": PNG}, {"files": [("images", PNG)]}, {"json": {"images": [TEXT]}}):
        headers = {"Content-Type": "image/png"} if "content" in body else {}
        answer = server.client.post(f"/embed?{query}", headers=headers, **body)

        check_error(answer, 400, "invalid_parameter")


@pytest.mark.parametrize("query", ["id=caf%C3%A9", "id=caf%c3%a9", "id=a+b%20c"])
def test_a_query_in_utf8_is_read(server: ServiceServer, query: str) -> None:
    answer = server.client.post(
        f"/embed?{query}", content=PNG, headers={"Content-Type": "image/png"}
    )

    assert ids_of(answer) == ["caf\u00e9" if "caf" in query else "a b c"]


@pytest.mark.parametrize(
    "charset", ["latin-1", "utf-16", "nonsense", "rot13", "base64", "idna", "undefined", "\xe9"]
)
def test_no_charset_of_a_form_is_a_fault_of_the_service(
    server: ServiceServer, charset: str
) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n\xff\xfe\r\n--b--\r\n'

    answer = server.client.post(
        "/embed",
        content=body,
        headers=[
            (
                b"Content-Type",
                f"multipart/form-data; boundary=b; charset={charset}".encode("latin-1"),
            )
        ],
    )

    assert answer.status_code == 400, answer.text


def test_json_takes_bare_data_uri_and_object_images(server: ServiceServer) -> None:
    images = [TEXT, f"data:image/png;base64,{TEXT}", {"data": TEXT}, {"data": TEXT, "id": "d"}]

    answer = send_json(server, {"images": images, "normalize": False})

    assert ids_of(answer) == [None, None, None, "d"]
    assert embeddings(answer).tolist() == [expected_pooled(COLOUR)] * 4


def test_json_takes_options_from_the_query_too(server: ServiceServer) -> None:
    answer = send_json(server, {"images": [TEXT], "output": "both"}, normalize="false")

    assert embeddings(answer).tolist() == [expected_pooled(COLOUR)]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_the_json_type_may_carry_a_charset(server: ServiceServer, content_type: str) -> None:
    answer = server.client.post(
        "/embed",
        content=f'{{"images": ["{TEXT}"]}}'.encode(),
        headers={"Content-Type": content_type},
    )

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"images": [NaN]}',
        b'{"images": ["\\ud800"]}',
        b'{"images": ["\xff"]}',
        b"[" * 50_000,
        b"\x1f\x8b\x08\x00gzip",
    ],
    ids=[
        "empty",
        "half",
        "list",
        "string",
        "null",
        "nan",
        "surrogate",
        "not_utf8",
        "deep",
        "gzip",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(server: ServiceServer, body: bytes) -> None:
    answer = server.client.post(
        "/embed", content=body, headers={"Content-Type": "application/json"}
    )

    check_error(answer, 400, "invalid_json")


@pytest.mark.parametrize("content", [{}, {"images": []}, {"images": None}, {"output": "both"}])
def test_json_without_images_is_refused(server: ServiceServer, content: dict[str, Any]) -> None:
    check_error(send_json(server, content), 400, "no_images", "images")


def test_an_unknown_key_is_named_also_where_images_are_missing(server: ServiceServer) -> None:
    error = check_error(send_json(server, {"picture": TEXT}), 400, "unknown_parameter", "picture")

    assert "images, image, normalize," in error["message"]


@pytest.mark.parametrize(
    "image",
    [TEXT, f"data:image/png;base64,{TEXT}", {"data": TEXT}, [TEXT]],
    ids=["bare", "data_uri", "object", "list"],
)
def test_json_takes_one_image_as_image(server: ServiceServer, image: Any) -> None:
    answer = send_json(server, {"image": image, "normalize": False})

    assert embeddings(answer).tolist() == [expected_pooled(COLOUR)]


def test_json_with_image_and_images_is_refused(server: ServiceServer) -> None:
    check_error(
        send_json(server, {"image": TEXT, "images": [TEXT]}), 400, "invalid_parameter", "image"
    )


@pytest.mark.parametrize("image", [None, "", []])
def test_an_empty_image_in_json_is_none(server: ServiceServer, image: Any) -> None:
    check_error(send_json(server, {"image": image}), 400, "no_images", "images")


def test_what_is_wrong_with_the_one_image_is_told_of_the_first(server: ServiceServer) -> None:
    error = check_error(send_json(server, {"image": "A!"}), 400, "invalid_base64", "images[0]")

    assert error["message"] == (
        "image 0: the data is not base64: character 2 (index 1) does not belong there"
    )


def test_json_may_begin_with_a_byte_order_mark(server: ServiceServer) -> None:
    body = b"\xef\xbb\xbf" + f'{{"images": ["{TEXT}"]}}'.encode()
    answer = server.client.post("/embed", content=body, headers={"Content-Type": "text/json"})

    assert answer.status_code == 200, answer.text


def test_an_image_that_is_called_json_is_told_so(server: ServiceServer) -> None:
    answer = server.client.post("/embed", content=PNG, headers={"Content-Type": "application/json"})

    error = check_error(answer, 400, "invalid_json")
    assert "is an image" in error["message"]


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        ({"images": [TEXT], "colour": 1}, "unknown_parameter", "colour"),
        ({"images": [{"data": TEXT, "name": 1}]}, "unknown_parameter", "images[0].name"),
        ({"images": TEXT}, "invalid_parameter", "images"),
        ({"images": [TEXT, 5]}, "invalid_parameter", "images[1]"),
        ({"images": [{}]}, "invalid_parameter", "images[0]"),
        ({"images": [{"data": TEXT, "url": "http://a/"}]}, "invalid_parameter", "images[0]"),
        ({"images": [{"data": 5}]}, "invalid_parameter", "images[0].data"),
        ({"images": [{"data": TEXT, "id": 5}]}, "invalid_parameter", "images[0].id"),
        ({"images": [{"data": TEXT, "id": "x" * 257}]}, "invalid_parameter", "images[0].id"),
        ({"images": [TEXT], "output": "all"}, "invalid_parameter", "output"),
        ({"images": [TEXT], "normalize": "perhaps"}, "invalid_parameter", "normalize"),
        ({"images": [TEXT], "encoding": "hex"}, "invalid_parameter", "encoding"),
        ({"images": [TEXT], "dtype": "int8"}, "invalid_parameter", "dtype"),
        ({"images": [TEXT], "on_error": "ignore"}, "invalid_parameter", "on_error"),
        ({"images": [TEXT], "expect_space": 5}, "invalid_parameter", "expect_space"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_name(
    server: ServiceServer, content: dict[str, Any], code: str, param: str
) -> None:
    check_error(send_json(server, content), 400, code, param)


@pytest.mark.parametrize("form", ["raw", "multipart"])
@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("colour", "1", "unknown_parameter"),
        ("output", "all", "invalid_parameter"),
        ("normalize", "perhaps", "invalid_parameter"),
        ("encoding", "hex", "invalid_parameter"),
        ("dtype", "int8", "invalid_parameter"),
        ("on_error", "ignore", "invalid_parameter"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    server: ServiceServer, form: str, option: str, value: str, code: str
) -> None:
    check_error(post_images(server.client, form, [PNG], {option: value}), 400, code, option)


def test_an_unknown_name_is_shown_cut_and_without_odd_characters(server: ServiceServer) -> None:
    answer = send_json(server, {"images": [TEXT], "\u2028\n" + "x" * 500: 1})

    check_error(answer, 400, "unknown_parameter", "??" + "x" * 62)


def test_urls_are_refused_by_a_service_that_fetches_none(server: ServiceServer) -> None:
    answer = send_json(server, {"images": [TEXT, {"url": "http://127.0.0.1/a.png"}]})

    error = check_error(answer, 403, "url_input_disabled", "images[1].url")
    assert "SIGLIP_URL_INPUT" in error["message"]


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_more_images_than_allowed_are_refused(server: ServiceServer, form: str) -> None:
    assert post_images(server.client, form, [PNG] * 5).status_code == 200
    refused = post_images(server.client, form, [PNG] * 6)
    error = check_error(refused, 413, "too_many_images")
    assert error["message"] == "more than 5 images in one request (SIGLIP_MAX_IMAGES)"


def send_encoded_form(server: ServiceServer, charset: str, image_id: bytes) -> httpx.Response:
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    body = part % (b"images", b'; filename="a"', PNG) + part % (b"id", b"", image_id) + b"--b--\r\n"
    content_type = f"multipart/form-data; boundary=b; charset={charset}"
    return server.client.post("/embed", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "punycode", "nonsense" * 1_000])
def test_a_form_may_not_name_any_codec_that_python_has(server: ServiceServer, charset: str) -> None:
    check_error(send_encoded_form(server, charset, b"+2AA-"), 400, "invalid_multipart")


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8"])
def test_a_form_may_say_that_it_is_utf_8(server: ServiceServer, charset: str) -> None:
    answer = send_encoded_form(server, charset, "modèle".encode())

    assert ids_of(answer) == ["modèle"]


@pytest.mark.parametrize("boundary", [b"\r\n--bX", b"\r\n--b-X", b"\r\n--b\rX"])
def test_a_form_full_of_false_boundaries_is_refused(server: ServiceServer, boundary: bytes) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    answer = server.client.post(
        "/embed",
        content=head + 12_000 * boundary + b"\r\n--b--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )

    check_error(answer, 400, "invalid_multipart")
