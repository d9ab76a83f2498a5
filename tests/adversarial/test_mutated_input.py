"""Damaged images, texts and bodies: decoded or refused, and nothing else, whatever the damage."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.errors import ImageError, ImageTooLargeError, InvalidBase64Error
from app.intake.base64_text import decode_base64
from app.intake.decode import DecodedImage, DecodeLimits, decode_image
from app.intake.formats import FORMATS
from app.settings import Settings
from tests.adversarial.any_answer import REFUSALS, check_any_answer, refuse_constant
from tests.app.fake_embedder import SoundImages
from tests.app.fake_text_embedder import SoundTexts
from tests.app.images import animation, encode, plain_png, scene
from tests.app.service_server import ServiceServer, run_service

LIMITS = DecodeLimits(100_000, 1_000_000, 4_000, frozenset(FORMATS))
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
PNG = plain_png((10, 20, 30))


def same_every_time(examples: int) -> settings:
    """Return settings that try the same examples in every run, however long each of them takes."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None)


def _seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = scene(1).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    return [
        encode(scene(1), "JPEG", exif=exif, comment=b"a comment", icc_profile=bytes(300)),
        encode(scene(1), "JPEG", progressive=True),
        encode(scene(1).convert("CMYK"), "JPEG"),
        animation(COLOURS, "MPO"),
        encode(rgba, "PNG", exif=exif, icc_profile=bytes(300)),
        encode(scene(1).quantize(16), "PNG", transparency=3),
        encode(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)), "PNG"),
        animation(COLOURS, "PNG"),
        encode(scene(1), "WEBP", exif=exif),
        encode(rgba, "WEBP", lossless=True),
        animation(COLOURS, "WEBP"),
        encode(scene(1), "GIF"),
        animation(COLOURS, "GIF", comment=b"a comment"),
        encode(scene(1), "BMP"),
        encode(scene(1).quantize(16), "BMP"),
        encode(scene(1).convert("1"), "BMP"),
        encode(scene(1), "AVIF"),
        encode(rgba, "TIFF", exif=exif, compression="tiff_lzw"),
        encode(scene(1), "TIFF", compression="jpeg"),
        encode(scene(1).convert("1"), "TIFF", compression="group4"),
        animation(COLOURS, "TIFF"),
        encode(rgba, "HEIC"),
    ]


SEEDS = _seeds()

Mutation = Callable[[bytes], bytes]
_share = st.floats(0, 1, exclude_max=True)
_bytes_that_mean_something = st.sampled_from(
    [b"\0", b"\xff", b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\0" * 4, b"\xff" * 4, b"\x7f\xff"]
)


def _at(data: bytes, share: float) -> int:
    return int(len(data) * share)


def _overwrite(share: float, new: bytes) -> Mutation:
    return lambda data: data[: _at(data, share)] + new + data[_at(data, share) + len(new) :]


def _insert(share: float, new: bytes) -> Mutation:
    return lambda data: data[: _at(data, share)] + new + data[_at(data, share) :]


def _cut(start: float, end: float) -> Mutation:
    return lambda data: data[: _at(data, start)] + data[_at(data, end) :]


def _repeat(start: float, end: float, times: int) -> Mutation:
    def mutate(data: bytes) -> bytes:
        middle = data[_at(data, start) : _at(data, end)]
        return data[: _at(data, start)] + middle[:2_000] * times + data[_at(data, start) :]

    return mutate


_mutations = st.lists(
    st.one_of(
        st.builds(_overwrite, _share, st.binary(min_size=1, max_size=4)),
        st.builds(_overwrite, st.floats(0, 0.1), _bytes_that_mean_something),
        st.builds(_insert, _share, _bytes_that_mean_something | st.binary(max_size=20)),
        st.builds(_cut, _share, _share),
        st.builds(_repeat, _share, _share, st.integers(1, 9)),
        st.sampled_from(SEEDS).map(lambda other: _insert(0.5, other[len(other) // 2 :])),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def mutated_images(draw: st.DrawFn) -> bytes:
    """An image with one to four places damaged, most of which keep it an image at first sight."""
    data = draw(st.sampled_from(SEEDS))
    head = 12 if draw(st.booleans()) else 0  # leave what tells the format alone
    body = data[head:]
    for mutate in draw(_mutations):
        body = mutate(body)
    return data[:head] + body


@same_every_time(1_000)
@given(data=mutated_images(), least_side=st.sampled_from([None, 8]))
def test_a_damaged_image_is_decoded_or_refused(data: bytes, least_side: int | None) -> None:
    decoded = _decoded_or_refused(data, least_side)
    if isinstance(decoded, ImageError):
        assert 400 <= decoded.status < 500
        assert len(decoded.message) < 120
        return
    assert decoded.pixels.mode == "RGB"
    assert np.asarray(decoded.pixels).shape[2] == 3
    assert 0 < decoded.size[0] * decoded.size[1] <= LIMITS.max_pixels


def _decoded_or_refused(data: bytes, least_side: int | None) -> DecodedImage | ImageError:
    try:
        return decode_image(data, LIMITS, least_side=least_side)
    except ImageError as error:
        return error


@same_every_time(500)
@given(data=st.binary(max_size=300))
def test_what_base64_encodes_is_decoded(data: bytes) -> None:
    text = base64.b64encode(data).decode()

    assert decode_base64(text, 300) == data
    assert decode_base64(f"data:image/png;base64,{text}", 300) == data


@same_every_time(1_000)
@given(
    text=st.text(max_size=40)
    | st.text("ABCabc019+/=-_ \n", max_size=40)
    | st.builds("data:{};base64,{}".format, st.text(max_size=20), st.text("AB=", max_size=20))
)
def test_other_text_is_refused_or_decoded_as_the_standard_library_does(text: str) -> None:
    try:
        found = decode_base64(text, 20)
    except (InvalidBase64Error, ImageTooLargeError):
        return
    assert len(found) <= 22
    payload = text.partition(",")[2] if text.lstrip()[:5].lower() == "data:" else text
    assert _decoded_in_standard_writing(payload) == found


def _decoded_in_standard_writing(text: str) -> bytes | None:
    """Decode base64 without its line ends, in the standard alphabet, with its padding."""
    text = re.sub(r"[ \t\r\n\f\v]", "", text).replace("-", "+").replace("_", "/")
    core = text.rstrip("=")
    padding = -len(core) % 4
    if len(text) - len(core) > padding:
        return None
    try:
        return base64.b64decode(core + "=" * padding, validate=True)
    except (binascii.Error, ValueError):
        return None


@pytest.fixture(scope="module")
def server(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    with run_service(Settings(max_images=5, max_pixels=1_000_000), SoundImages()) as service:
        yield service


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_json_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
_image_texts = st.sampled_from([base64.b64encode(PNG).decode()]) | mutated_images().map(
    lambda data: "data:image/png;base64," + base64.b64encode(data).decode()
)
_sound_items = _image_texts | st.fixed_dictionaries(
    {"data": _image_texts}, optional={"id": st.none() | st.text(max_size=300)}
)
_items = st.one_of(
    *[_sound_items] * 8,
    st.fixed_dictionaries({"data": _scalars}, optional={"id": _scalars}),
    st.fixed_dictionaries({"url": st.text(max_size=20) | st.just("http://127.0.0.1/")}),
    _json_values,
)
_rarely = st.sampled_from([False, False, False, False, True])
_sound_options = st.fixed_dictionaries(
    {},
    optional={
        "output": st.sampled_from(["pooled", "patches", "both"]),
        "normalize": st.booleans(),
        "encoding": st.sampled_from(["float", "base64"]),
        "dtype": st.just("float32"),
        "on_error": st.sampled_from(["fail", "partial"]),
    },
)
_any_options = st.dictionaries(
    st.sampled_from(["output", "normalize", "encoding", "dtype", "on_error", "expect_space", "x"]),
    _scalars,
)
_options = _rarely.flatmap(lambda wild: _any_options if wild else _sound_options)
_bodies = st.one_of(
    *[
        st.builds(lambda images, more: {"images": images, **more}, images, _options)
        for images in [*[st.lists(_items, min_size=1, max_size=6)] * 6, _json_values]
    ],
    _json_values,
).map(lambda body: json.dumps(body).encode())


@st.composite
def _mutated(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    body = draw(bodies)
    for mutate in draw(_mutations) if draw(_rarely) else ():
        body = mutate(body)
    return body


@same_every_time(400)
@given(body=_mutated(_bodies))
def test_any_json_body_is_answered(server: ServiceServer, body: bytes) -> None:
    answer = server.client.post(
        "/embed", content=body, headers={"Content-Type": "application/json"}
    )

    check_any_answer(answer)


_texts = st.text(max_size=20) | st.sampled_from(["cat", "{}", "a {}", "", "{0}"])
_label_lists = st.lists(
    st.one_of(
        *[_texts] * 4,
        st.fixed_dictionaries({"label": _texts}, optional={"prompts": st.lists(_texts)}),
        _json_values,
    ),
    max_size=5,
)
_label_bodies = st.fixed_dictionaries(
    {"images": st.lists(_image_texts, min_size=1, max_size=2), "labels": _label_lists},
    optional={
        "template": _texts | st.lists(_texts, max_size=3) | _json_values,
        "scoring": st.sampled_from(["sigmoid", "softmax", "cosine"]),
        "top_k": st.integers(1, 3) | _scalars,
        "threshold": st.floats(-1, 1) | _scalars,
        "on_error": st.just("partial"),
    },
).map(lambda body: json.dumps(body).encode())
_vectorize_bodies = st.fixed_dictionaries(
    {},
    optional={
        "texts": st.none() | st.lists(_texts, max_size=5) | _json_values,
        "images": st.none() | st.lists(_image_texts, max_size=3) | _json_values,
    },
).map(lambda body: json.dumps(body).encode())


@pytest.fixture(scope="module")
def labelling(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    settings = Settings(max_images=5, max_pixels=1_000_000, adapters=frozenset({"weaviate"}))
    with run_service(settings, SoundImages(), texts=SoundTexts()) as service:
        yield service


@same_every_time(400)
@given(
    path_and_body=st.one_of(
        st.tuples(st.just("/classify"), _mutated(_label_bodies)),
        st.tuples(st.just("/vectorize"), _mutated(_vectorize_bodies)),
    )
)
def test_any_labels_and_any_lists_are_answered(
    labelling: ServiceServer, path_and_body: tuple[str, bytes]
) -> None:
    path, body = path_and_body
    answer = labelling.client.post(path, content=body, headers={"Content-Type": "application/json"})

    content = json.loads(answer.content, parse_constant=refuse_constant)
    if answer.status_code != 200:
        assert answer.status_code in REFUSALS, answer.text
        assert isinstance(content["error"], str if path == "/vectorize" else dict)
    elif path == "/classify":
        for item in content["data"]:
            scores = [label["score"] for label in item.get("labels", ())]
            assert scores == sorted(scores, reverse=True)


_names = st.sampled_from(
    [*["images"] * 12, "image", "file", "output", "id", "normalize", "", "a b"]
)
_file_heads = st.builds(
    'Content-Disposition: form-data; name="{}"; filename="{}"'.format,
    _names,
    st.text("ab.\u00e9/", max_size=5),
)
_field_heads = st.builds('Content-Disposition: form-data; name="{}"'.format, _names)
_wild_heads = st.text('abc:;=" \t', max_size=30)
_wild_contents = st.sampled_from([b"", b"\xff", b"--b", b"\r\n--b"])


@st.composite
def _forms(draw: st.DrawFn) -> bytes:
    heads, contents = _file_heads, st.just(PNG) | mutated_images()
    end = b"--b--\r\n"
    if draw(_rarely):
        heads, contents = heads | _field_heads | _wild_heads, contents | _wild_contents
        end = draw(st.sampled_from([end, b"--b--", b"", b"--b"]))
    parts = draw(st.lists(st.tuples(heads, contents), min_size=1, max_size=6))
    written = [
        b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts
    ]
    return b"".join(written) + end


@same_every_time(400)
@given(body=_mutated(_forms()), boundary=st.sampled_from([*["b"] * 9, '"b"', "c", "", "b" * 80]))
def test_any_form_is_answered(server: ServiceServer, body: bytes, boundary: str) -> None:
    answer = server.client.post(
        "/embed",
        content=body,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )

    check_any_answer(answer)


@same_every_time(300)
@given(
    query=st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=4) | _options,
    accept=st.text("aplictonjs/-xy*;q=0.,15 ", max_size=30),
    patience=st.text("0123456789-+. e", max_size=12),
)
def test_any_options_are_answered(
    server: ServiceServer, query: dict[str, Any], accept: str, patience: str
) -> None:
    headers = {"Content-Type": "image/png", "Accept": accept.strip()}
    if patience.strip():
        headers["X-Request-Timeout-Ms"] = patience.strip() + "000"

    answer = server.client.post("/embed", params=query, content=PNG, headers=headers)

    if answer.headers["content-type"] == "application/json":
        check_any_answer(answer)
    else:
        assert answer.status_code == 200
