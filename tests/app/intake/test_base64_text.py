"""Base64 text to bytes, in every writing that has one meaning, and within limits."""

import base64
import time

import pytest

from app.errors import ImageTooLargeError, InvalidBase64Error
from app.intake.base64_text import decode_base64

LIMIT = 1_000


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 255])
def test_bare_base64_gives_its_bytes(length: int) -> None:
    data = bytes(range(length))

    assert decode_base64(base64.b64encode(data).decode(), LIMIT) == data


@pytest.mark.parametrize(
    "start",
    [
        "data:image/png;base64,",
        "data:;base64,",
        "data:image/svg+xml;charset=utf-8;base64,",
        "data:application/x-a.b-c;name=a.png;v=1;base64,",
    ],
)
def test_a_data_uri_gives_its_bytes(start: str) -> None:
    assert decode_base64(start + "QUJD", LIMIT) == b"ABC"


@pytest.mark.parametrize(
    "start",
    [
        "DATA:image/png;base64,",
        "Data:Image/PNG;BASE64,",
        "data:image/png;Base64,",
        " data:image/png;base64,",
        "\r\ndata:image/png;base64,",
        "data:image/png; base64, ",
        "data: image/png ;base64 ,\n",
        "DATA:;BASE64,",
    ],
)
def test_a_data_uri_may_be_in_any_case_and_have_spaces(start: str) -> None:
    assert decode_base64(start + "QU\nJD", LIMIT) == b"ABC"


DATA = bytes(range(256)) + b"\xfb\xff\xfe"  # with + and / in it, and padding at its end
STANDARD = base64.b64encode(DATA).decode()
FOR_URLS = base64.urlsafe_b64encode(DATA).decode()
WRITINGS = {
    "lines of 76, as Python and GNU write them": base64.encodebytes(DATA).decode(),
    "lines of CR and LF, as MIME has them": base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
    "lines of 64 with an indent, as YAML": "\n    ".join(
        STANDARD[i : i + 64] for i in range(0, len(STANDARD), 64)
    ),
    "a trailing newline, as echo gives it": STANDARD + "\n",
    "a leading space": " " + STANDARD,
    "tabs and form feeds": "\t" + STANDARD[:5] + "\f\v" + STANDARD[5:],
    "the alphabet for URLs": FOR_URLS,
    "the alphabet for URLs, in lines and without padding": "\n".join(
        (FOR_URLS[:100], FOR_URLS[100:].rstrip("="))
    ),
    "both alphabets": STANDARD.replace("+", "-", 1).replace("/", "_", 1),
    "without padding": STANDARD.rstrip("="),
    "padding in a line of its own": STANDARD.replace("=", "\n="),
}


@pytest.mark.parametrize("writing", WRITINGS)
@pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
def test_every_writing_of_base64_gives_its_bytes(start: str, writing: str) -> None:
    assert STANDARD.endswith("=")
    assert decode_base64(start + WRITINGS[writing], LIMIT) == DATA


@pytest.mark.parametrize(
    ("text", "data"),
    [("QQ", b"A"), ("QQ=", b"A"), ("QUI", b"AB"), ("QU-_", b"AO\xbf"), ("\n", b""), ("Q Q", b"A")],
)
def test_padding_may_be_missing(text: str, data: bytes) -> None:
    assert decode_base64(text, LIMIT) == data


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("not base64!", 10),
        ("QUJD\x00", 4),
        ("QUJ\u00e9", 3),
        ("QU\nJ\u00e9", 4),
        ("\uff21\uff21\uff21\uff21", 0),
        ("\n\nQU%2B", 4),
        ("QUJDQUJD.QUJ?", 8),
        # Padding that stands for nothing, or has something behind it.
        ("AAAA====", 4),
        ("AAAA=", 4),
        ("AAAA\n=", 5),
        ("QQ===", 4),
        ("QQ=\n==", 5),
        ("=AAA", 0),
        ("=", 0),
        ("AB=C", 2),
        ("AB = C", 3),
        ("QQ==QQ==", 2),
        # Six bits that are no byte.
        ("A", 0),
        ("A===", 0),
        ("QUJDQ\n", 4),
        # In a data URI it is counted from the beginning of that.
        ("data:image/png;base64,QU!D", 24),
        ("data:image/png;base64,data:image/png;base64,QUJD", 26),
        ("https://127.0.0.1/a.png", 5),
    ],
)
def test_what_is_no_base64_is_refused_by_its_first_wrong_character(text: str, index: int) -> None:
    with pytest.raises(InvalidBase64Error) as refused:
        decode_base64(text, LIMIT)

    assert f"character {index + 1} (index {index}) " in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png,QUJD",
        "data:image/png;base64",
        "data:image/png;base64url,QUJD",
        "data:" + "a" * 300 + ";base64,QUJD",
    ],
)
def test_another_data_uri_is_refused(text: str) -> None:
    with pytest.raises(InvalidBase64Error, match="data URI"):
        decode_base64(text, LIMIT)


def test_line_ends_do_not_count_as_bytes() -> None:
    data = bytes(LIMIT)

    assert decode_base64(base64.encodebytes(data).decode().replace("\n", "\r\n"), LIMIT) == data
    with pytest.raises(ImageTooLargeError, match="1000 bytes"):
        decode_base64(base64.encodebytes(bytes(LIMIT + 3)).decode(), LIMIT)


@pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_data_just_within_the_limit_is_decoded(start: str, extra: int) -> None:
    data = bytes(LIMIT - extra)

    assert decode_base64(start + base64.b64encode(data).decode(), LIMIT) == data


@pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
def test_text_over_the_limit_is_refused_before_it_is_decoded(start: str) -> None:
    """It is no base64, which decoding would have said first."""
    with pytest.raises(ImageTooLargeError):
        decode_base64(start + "!" * (2 * LIMIT), LIMIT)


@pytest.mark.parametrize("text", ["data:" + "a" * 16_000, "data:a/" + "a;a=a" * 8_000])
def test_a_data_uri_without_end_is_refused_in_no_time(text: str) -> None:
    """A pattern that backtracks takes many seconds, and lets no other thread run."""
    start = time.thread_time()  # of this thread alone: others may want the cores
    with pytest.raises(InvalidBase64Error):
        decode_base64(text, 10**9)
    assert time.thread_time() - start < 1
