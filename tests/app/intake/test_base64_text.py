"""Base64 text to bytes, strictly and within limits."""

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
    "text",
    [
        "AAAA====",
        "QQ",
        "QQ=",
        "QQ===",
        "=AAA",
        "A",
        "AB=C",
        "QU-_",
        "QU JD",
        "QUJD\n",
        "\nQUJD",
        "QU\tJD",
        "QUJD\x00",
        "QUJ\u00e9",
        "\uff21\uff21\uff21\uff21",
        "data:image/png,QUJD",
        "data:image/png;base64",
        "data:image/png;base64,QU-_",
        "data:image/png;base64,data:image/png;base64,QUJD",
        "data:" + "a" * 300 + ";base64,QUJD",
        "https://127.0.0.1/a.png",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidBase64Error):
        decode_base64(text, LIMIT)


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
