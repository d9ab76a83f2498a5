"""Forms as clients write them, byte by byte over a real socket."""

import httpx
import pytest

from tests.app.answers import check_error, embeddings
from tests.app.fake_embedder import expected_pooled
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer

COLOURS = [(10, 20, 30), (40, 50, 60), (70, 80, 90)]
PNGS = [plain_png(colour) for colour in COLOURS]
END = b"--b--\r\n"
EMPTY_INPUT = b'Content-Disposition: form-data; name="images"; filename=""\r\n\
Content-Type: application/octet-stream'


def part(head: str | bytes, content: bytes) -> bytes:
    """Write a part from its headers, or from the parameters of its one header."""
    if isinstance(head, str):
        head = f"Content-Disposition: form-data; {head}".encode()
    return b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def send(
    server: ServiceServer, body: bytes, content_type: str = "multipart/form-data; boundary=b"
) -> httpx.Response:
    """POST a form; the vectors come back as they are."""
    return server.client.post(
        "/embed?normalize=false", content=body, headers={"Content-Type": content_type}
    )


def vectors(*numbers: int) -> list[list[float]]:
    return [expected_pooled(COLOURS[number]) for number in numbers]


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="images"\r\nContent-Type: image/png',
        b'content-disposition: FORM-DATA; NAME="images"\r\ncontent-type: IMAGE/PNG',
        b'Content-Type: image/x-unknown\r\nContent-Disposition: form-data; name="image"',
        b"Content-Type: binary/octet-stream\r\nContent-Disposition: form-data; name=images",
        b"Content-Disposition: form-data; name=images\r\nContent-Type: application/octet-stream",
        b"Content-Disposition: form-data; name=images; filename=a.png",
        b"Content-Disposition: form-data; name=images; filename*=UTF-8''caf%C3%A9.png",
        b'Content-Disposition: form-data; name="images"; filename=""',
        b'Content-Disposition: form-data; name="images"; filename="a;\\"b.png"',
    ],
)
def test_a_part_is_a_file_by_its_filename_or_its_type(server: ServiceServer, head: bytes) -> None:
    assert embeddings(send(server, part(head, PNGS[0]) + END)).tolist() == vectors(0)


@pytest.mark.parametrize("content", [b"text", PNGS[0], b"iVBORw0KGgo" * 8_000], ids=len)
@pytest.mark.parametrize("kind", [b"", b"\r\nContent-Type: text/plain; charset=utf-8"])
def test_an_image_that_is_text_is_told_to_be_a_file_whatever_its_size(
    server: ServiceServer, kind: bytes, content: bytes
) -> None:
    head = b'Content-Disposition: form-data; name="images"' + kind

    error = check_error(send(server, part(head, content) + END), 400, "invalid_parameter", "images")
    assert "must be sent as a file" in error["message"]


def test_an_empty_file_input_is_no_file(server: ServiceServer) -> None:
    empty = part(EMPTY_INPUT, b"")
    five = b"".join(part('name="images"; filename="a"', PNGS[0]) for _ in range(5))

    check_error(send(server, empty + END), 400, "no_images")
    assert embeddings(send(server, empty + five + empty + END)).tolist() == vectors(*[0] * 5)


def test_a_file_without_bytes_that_has_a_name_is_an_empty_image(server: ServiceServer) -> None:
    answer = send(server, part('name="images"; filename="a.png"', b"") + END)

    check_error(answer, 415, "unsupported_image_format", "images[0]")


@pytest.mark.parametrize(
    "names",
    [
        ["images[]", "images[]", "images[]"],
        ["images[0]", "images[1]", "images[2]"],
        ["image[]", "image[]", "image[]"],
        ["files[]", "file[7]", "images"],
        ["images[2]", "images[1]", "images[0]"],
    ],
)
def test_members_of_a_list_are_images_in_order_of_appearance(
    server: ServiceServer, names: list[str]
) -> None:
    body = b"".join(
        part(f'name="{name}"; filename="a"', png) for name, png in zip(names, PNGS, strict=True)
    )

    assert embeddings(send(server, body + END)).tolist() == vectors(0, 1, 2)


@pytest.mark.parametrize("names", [["id[]", "id[]"], ["id[0]", "id[1]"], ["id", "id"]])
def test_ids_may_be_members_of_a_list_too(server: ServiceServer, names: list[str]) -> None:
    body = b"".join(
        part(f'name="images[]"; filename="{number}"', PNGS[number])
        + part(f'name="{names[number]}"', f"sku-{number}".encode())
        for number in range(2)
    )

    items = send(server, body + END).json()["data"]
    assert [item["id"] for item in items] == ["sku-0", "sku-1"]


@pytest.mark.parametrize("name", ["images[a]", "images[0][data]", "images[", "images]", "[]"])
def test_no_other_brackets_are_read(server: ServiceServer, name: str) -> None:
    answer = send(server, part(f'name="{name}"; filename="a"', PNGS[0]) + END)

    check_error(answer, 400, "unknown_parameter", name)


@pytest.mark.parametrize(
    "preamble",
    [
        b"\r\n",
        b"This is a message in MIME format.\r\n",
        b"--\r\n--a\r\n-- b\r\n",
        b"x" * 70_000 + b"\r\n",
    ],
    ids=["line_end", "words", "dashes", "long"],
)
def test_a_form_may_have_a_preamble_and_an_epilogue(server: ServiceServer, preamble: bytes) -> None:
    form = part('name="images"; filename="a"', PNGS[0]) + END

    assert embeddings(send(server, preamble + form + b"and so on")).tolist() == vectors(0)


def test_a_boundary_may_come_in_pieces(server: ServiceServer) -> None:
    form = b"preamble\r\n" + part('name="images"; filename="a"', PNGS[0]) + END
    head = b"POST /embed?normalize=false HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in form)

    answer = server.ask_raw(head + chunks + b"0\r\n\r\n")

    assert embeddings(answer).tolist() == vectors(0)


@pytest.mark.parametrize(
    "content_type",
    [
        "Multipart/Form-Data; boundary=b",
        "MULTIPART/FORM-DATA;BOUNDARY=b",
        'multipart/form-data; charset=UTF-8; boundary="b"',
        'multipart/form-data; boundary = "b"',
    ],
)
def test_the_type_of_a_form_may_be_in_any_writing(server: ServiceServer, content_type: str) -> None:
    form = part('name="images"; filename="a"', PNGS[0]) + END

    assert embeddings(send(server, form, content_type)).tolist() == vectors(0)


def test_a_flood_of_fields_is_refused(server: ServiceServer) -> None:
    check_error(send(server, part('name="id"', b"") * 300 + END), 400, "invalid_multipart")
