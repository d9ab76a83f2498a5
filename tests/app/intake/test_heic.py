"""HEIC: libheif's pixels of the primary image, upright as its own properties say, and bounded."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from app.errors import (
    ImageError,
    ImageSuspiciousError,
    ImageTooLargeError,
    ImageUndecodableError,
    UnsupportedImageFormatError,
)
from app.intake.boxes import Box
from app.intake.decode import DecodeLimits, decode_image
from app.intake.decode_process import DecodeProcess
from app.intake.heic import load_heic_decoder, outline_heic
from app.intake.heif import HeifImage, Item, Property, needed_items, read_heif
from app.intake.heif_rebuilt import item_bytes, rebuild
from tests.app.images import encode, scene

LIMITS = DecodeLimits(2**24, 64_000_000, 65_535, frozenset({"heic"}))
PICTURE = scene(1)
HEIC = encode(PICTURE, "HEIC")
ALL = frozenset(
    {b"ispe", b"pixi", b"hvcC", b"colr", b"auxC", b"clap", b"irot", b"imir"}
)  # properties
TILE = 64


def read_with_libheif(data: bytes) -> Image.Image:
    """Return what libheif makes of a file, which turns it itself, on white."""
    load_heic_decoder()
    with Image.open(BytesIO(data), formats=("HEIC",)) as opened:
        image = opened.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def assert_as_libheif(data: bytes) -> tuple[str, ...]:
    """Check the pixels and return the warnings."""
    decoded, expected = decode_image(data, LIMITS), read_with_libheif(data)
    assert decoded.size == expected.size
    assert np.array_equal(np.asarray(decoded.pixels), np.asarray(expected))
    return decoded.warnings


def with_properties(data: bytes, *boxes: tuple[bytes, bytes]) -> bytes:
    """Give the primary item more properties."""
    image = read_heif(data)
    image.items[image.primary].properties += [
        Property(Box(name, memoryview(content)), essential=True) for name, content in boxes
    ]
    return rebuild(image, data, needed_items(image), b"heic", ALL)


def grid_of(
    rows: int, columns: int, size: tuple[int, int], *, kind: bytes = b"grid", **claim: Any
) -> bytes:
    """Make an image of tiles, as telephones do; what its `ispe` says may be another size."""
    data, image = b"", HeifImage(primary=1)
    tiles = list(range(2, 2 + rows * columns))
    for number in tiles:
        coded = encode(scene(number, (TILE, TILE)), "HEIC")
        tile = read_heif(coded)
        content = item_bytes(tile, coded, tile.primary)
        properties = tile.items[tile.primary].properties
        image.items[number] = Item(b"hvc1", [(0, len(data), len(content))], properties)
        data += content
    head = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *size)
    claimed = b"\0\0\0\0" + struct.pack(">II", *claim.get("claimed", size))
    properties = [Property(Box(b"ispe", memoryview(claimed)), essential=True)]
    image.items[1] = Item(kind, [(0, len(data), len(head))], properties)
    image.references = [(b"dimg", 1, tiles)]
    return rebuild(image, data + head, [1, *tiles], b"heic", ALL)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
@pytest.mark.parametrize("size", [(60, 40), (61, 41), (1, 1), (300, 7)])
def test_it_gives_libheifs_pixels(mode: str, size: tuple[int, int]) -> None:
    image = scene(1, size).convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(size))
    warnings = assert_as_libheif(encode(image, "HEIC", quality=90))
    assert warnings == (("alpha_flattened",) if "A" in mode else ())


def test_nearly_the_colours_that_were_encoded_come_out() -> None:
    decoded = decode_image(encode(PICTURE, "HEIC", quality=-1, chroma=444), LIMITS)
    assert np.abs(np.asarray(decoded.pixels).astype(int) - np.asarray(PICTURE)).max() <= 3


def test_ten_bits_become_eight() -> None:
    deep = np.asarray(PICTURE).astype(np.uint16) * 257
    file = BytesIO()
    pillow_heif.from_bytes("RGB;16", PICTURE.size, deep.tobytes()).save(file, chroma=444)
    assert_as_libheif(file.getvalue())
    pixels = np.asarray(decode_image(file.getvalue(), LIMITS).pixels).astype(int)
    assert np.abs(pixels - np.asarray(PICTURE)).mean() < 3


_TURNS = [[], *([(b"irot", bytes((angle,)))] for angle in range(4))]
_MIRRORS = [[], [(b"imir", b"\0")], [(b"imir", b"\1")]]


@pytest.mark.parametrize("turn", _TURNS)
@pytest.mark.parametrize("mirror", _MIRRORS)
def test_it_is_upright_as_its_properties_say_in_their_order(
    turn: list[tuple[bytes, bytes]], mirror: list[tuple[bytes, bytes]]
) -> None:
    for boxes in ([*turn, *mirror], [*mirror, *turn]):
        warnings = assert_as_libheif(with_properties(HEIC, *boxes))
        is_turned = any(content != b"\0" for _, content in turn) or bool(mirror)
        assert warnings == (("exif_rotated",) if is_turned else ())


@pytest.mark.parametrize(
    "boxes",
    [
        [(b"irot", b"\1"), (b"irot", b"\1")],
        [(b"irot", b"\1"), (b"clap", struct.pack(">8I", 8, 1, 8, 1, 0, 1, 0, 1))],
    ],
)
def test_turns_that_are_told_twice_or_in_front_of_a_crop_are_refused(
    boxes: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(ImageUndecodableError):
        outline_heic(with_properties(HEIC, *boxes), LIMITS.max_pixels)


@pytest.mark.parametrize("size", [(128, 192), (100, 150), (65, 129)])
def test_tiles_become_one_image(size: tuple[int, int]) -> None:
    data = grid_of(3, 2, size)

    assert assert_as_libheif(data) == ()

    pixels = np.asarray(decode_image(data, LIMITS).pixels).astype(int)
    assert pixels.shape == (size[1], size[0], 3)
    tile = np.asarray(scene(2, (TILE, TILE))).astype(int)  # the first
    assert np.abs(pixels[:TILE, :TILE] - tile).mean() < 10


def test_a_profile_that_is_essential_as_telephones_have_it_is_left_out() -> None:
    image = read_heif(HEIC)
    profile = Property(Box(b"colr", memoryview(b"prof" + bytes(500))), essential=True)
    image.items[image.primary].properties.append(profile)

    rebuilt = rebuild(image, HEIC, needed_items(image), b"heic", ALL)

    assert b"prof" not in rebuilt
    assert assert_as_libheif(rebuilt) == ()


def test_a_file_that_names_its_container_first_is_read() -> None:
    expected = decode_image(HEIC, LIMITS).pixels.tobytes()
    for brand in (b"mif1", b"msf1", b"miaf", b"heix"):
        data = HEIC.replace(b"ftypheic", b"ftyp" + brand)
        assert decode_image(data, LIMITS).pixels.tobytes() == expected


@pytest.mark.parametrize("kind", [b"iovl", b"iden", b"av01", b"jpeg", b"unci", b"hvc2"])
def test_what_is_made_otherwise_is_refused_in_words(kind: bytes) -> None:
    data = grid_of(1, 2, (128, 64), kind=kind)
    with pytest.raises(UnsupportedImageFormatError, match=f"made of {kind.decode()} items"):
        decode_image(data, LIMITS)


def test_a_grid_of_another_size_than_it_claims_is_refused() -> None:
    for claimed in ((8, 8), (128, 191)):
        with pytest.raises(ImageUndecodableError):
            outline_heic(grid_of(3, 2, (128, 192), claimed=claimed), LIMITS.max_pixels)


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Let a file claim a size."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


@pytest.mark.parametrize("size", [(8000, 8001), (2**31, 1), (2**32 - 1, 2**32 - 1)])
def test_a_claim_over_the_limit_is_refused_before_anything_is_opened(
    size: tuple[int, int],
) -> None:
    with pytest.raises(ImageTooLargeError):
        outline_heic(with_size(HEIC, *size), LIMITS.max_pixels)


def test_pixels_far_beyond_what_a_file_claims_have_no_memory() -> None:
    process = DecodeProcess(LIMITS)
    options = {"enc_params": {"preset": "ultrafast"}}
    large = encode(Image.new("RGB", (6_000, 6_000), "red"), "HEIC", quality=20, **options)
    try:
        with pytest.raises(ImageError):
            process.decode(with_size(large, 8, 8), None, lambda _: None)
        assert process.decode(HEIC, None, lambda _: None).size == PICTURE.size
    finally:
        process.close()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_a_file_that_ends_early_is_refused(share: float) -> None:
    with pytest.raises(ImageError):
        decode_image(HEIC[: int(len(HEIC) * share)], LIMITS)


def test_boxes_without_end_are_no_image() -> None:
    with pytest.raises(ImageSuspiciousError):
        outline_heic(HEIC[:28] + b"\0\0\0\x08free" * 20_000, LIMITS.max_pixels)


def test_it_is_decoded_by_no_thread_but_ours_within_libheifs_own_limits() -> None:
    load_heic_decoder()
    assert pillow_heif.options.DECODE_THREADS == 0
    assert not pillow_heif.options.DISABLE_SECURITY_LIMITS
