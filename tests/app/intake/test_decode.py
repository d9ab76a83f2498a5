"""Encoded images to upright RGB pixels, or the right error."""

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from transformers import SiglipImageProcessorPil

from app.errors import (
    ImageError,
    ImageTooLargeError,
    ImageTruncatedError,
    ImageUndecodableError,
)
from app.intake.decode import DecodedImage, DecodeLimits, decode_image, open_image
from app.intake.formats import FORMATS
from app.settings import Settings
from tests.app.images import animation, encode, oriented, plain, png_claiming, scene

LIMITS = DecodeLimits(
    max_image_bytes=1_000_000,
    max_pixels=50_000_000,
    max_side=16_384,
    formats=frozenset({"jpeg", "png", "webp", "gif", "bmp"}),
)
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
WHITE = (255, 255, 255)
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}}


def decode(data: bytes) -> DecodedImage:
    """Decode within the usual limits."""
    return decode_image(data, LIMITS)


def decode_or_refuse(data: bytes) -> DecodedImage | ImageError:
    """Decode, with a refusal as a value."""
    try:
        return decode(data)
    except ImageError as error:
        return error


def pixels_of(decoded: DecodedImage) -> np.ndarray:
    """Return the decoded pixels: (height, width, 3)."""
    assert decoded.pixels.mode == "RGB"
    return np.asarray(decoded.pixels)


@pytest.mark.parametrize("image_format", LOSSLESS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_pixels(
    image_format: str, orientation: int
) -> None:
    upright = scene(1)
    stored, exif = oriented(upright, orientation)

    decoded = decode(encode(stored, image_format, exif=exif, **LOSSLESS[image_format]))

    assert np.array_equal(pixels_of(decoded), np.asarray(upright))
    assert decoded.warnings == (("exif_rotated",) if orientation > 1 else ())


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_jpeg_is_turned_after_decoding(orientation: int) -> None:
    stored, exif = oriented(scene(1), orientation)
    data = encode(stored, "JPEG", exif=exif)

    with Image.open(BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))

    assert np.array_equal(pixels_of(decode(data)), expected)
    assert pixels_of(decode(data)).shape == (40, 60, 3)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")  # as the service does
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_an_orientation_in_front_of_much_else_is_found(image_format: str) -> None:
    stored, exif = oriented(scene(1), 6)
    exif[ExifTags.Base.UserComment] = bytes(200_000)

    decoded = decode(encode(stored, image_format, exif=exif, lossless=True))

    assert np.array_equal(pixels_of(decoded), np.asarray(scene(1)))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation

    decoded = decode(encode(scene(1), "PNG", exif=exif))

    assert np.array_equal(pixels_of(decoded), np.asarray(scene(1)))
    assert decoded.warnings == ()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00",
        b"Exif\x00\x00LoremIpsum",
        b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + struct.pack("<H", 9) + bytes(20),
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00"
        + struct.pack("<HHHIIHHII", 1, 0x8769, 4, 1, 8, 0x0112, 3, 1, 6),
    ],
    ids=["empty", "text", "outside", "short", "cyclic"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_broken_exif_is_no_reason_to_refuse_the_pixels(exif: bytes) -> None:
    plain_jpeg = encode(scene(1), "JPEG")

    decoded = decode(encode(scene(1), "JPEG", exif=exif))

    assert np.array_equal(pixels_of(decoded), pixels_of(decode(plain_jpeg)))


def _alpha_images() -> dict[str, bytes]:
    rgba = scene(2).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    grey_alpha = rgba.convert("LA")
    grey = scene(2).convert("L")
    palette = scene(2).quantize(16)
    return {
        "RGBA PNG": encode(rgba),
        "LA PNG": encode(grey_alpha),
        "P PNG with one clear colour": encode(palette, transparency=3),
        "P PNG with an alpha per colour": encode(palette, transparency=bytes(range(0, 256, 16))),
        "RGB PNG with a clear colour": encode(scene(2), transparency=scene(2).getpixel((3, 3))),
        "L PNG with a clear grey": encode(grey, transparency=grey.getpixel((3, 3))),
        "1 PNG with a clear bit": encode(grey.convert("1"), transparency=1),
        "lossless WebP": encode(rgba, "WEBP", lossless=True, exact=True),
        "lossy WebP": encode(rgba, "WEBP"),
        "GIF": encode(palette, "GIF", transparency=3),
    }


ALPHA_IMAGES = _alpha_images()


@pytest.mark.parametrize("kind", ALPHA_IMAGES)
def test_transparency_is_laid_on_white_as_in_the_reference(kind: str) -> None:
    with Image.open(BytesIO(ALPHA_IMAGES[kind])) as image:
        expected = np.asarray(SiglipImageProcessorPil().convert_to_rgb(image))

    decoded = decode(ALPHA_IMAGES[kind])

    assert np.array_equal(pixels_of(decoded), expected)
    assert "alpha_flattened" in decoded.warnings


def test_what_is_clear_becomes_white() -> None:
    image = plain(RED).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))

    decoded = decode(encode(image))

    assert decoded.pixels.getpixel((0, 0)) == WHITE
    assert decoded.pixels.getpixel((1, 0)) == RED


def test_a_fully_opaque_alpha_channel_needs_no_warning() -> None:
    decoded = decode(encode(scene(2).convert("RGBA")))

    assert decoded.warnings == ()
    assert np.array_equal(pixels_of(decoded), np.asarray(scene(2)))


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 255, 257, 32_768, 65_278, 65_535]], np.uint16)

    decoded = decode(encode(Image.fromarray(values)))

    assert pixels_of(decoded)[0, :, 0].tolist() == [0, 1, 1, 128, 254, 255]
    assert decoded.warnings == ("grey_16bit_scaled",)


def test_a_turned_16_bit_image_is_turned_and_scaled() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6

    decoded = decode(encode(Image.fromarray(np.array([[0, 65_535]], np.uint16)), exif=exif))

    assert pixels_of(decoded)[:, 0, 0].tolist() == [0, 255]
    assert decoded.warnings == ("exif_rotated", "grey_16bit_scaled")


def test_16_bit_grey_with_a_clear_value_is_laid_on_white() -> None:
    values = np.array([[1_000, 30_000]], np.uint16)

    decoded = decode(encode(Image.fromarray(values), transparency=1_000))

    assert decoded.pixels.getpixel((0, 0)) == WHITE
    assert decoded.pixels.getpixel((1, 0)) == (117, 117, 117)
    assert decoded.warnings == ("grey_16bit_scaled", "alpha_flattened")


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "YCbCr"])
def test_every_colour_mode_becomes_rgb_as_pillow_converts_it(mode: str) -> None:
    image = scene(3).convert(mode)
    data = encode(image, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")

    with Image.open(BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))

    decoded = decode(data)

    assert np.array_equal(pixels_of(decoded), expected)
    assert decoded.warnings == ()


@pytest.mark.parametrize(
    ("image_format", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})],
    ids=["GIF", "WebP", "APNG"],
)
def test_an_animation_is_its_first_frame(image_format: str, options: dict[str, Any]) -> None:
    decoded = decode(animation([RED, BLUE, GREEN], image_format, **options))

    assert decoded.pixels.getcolors() == [(48, RED)]
    assert decoded.warnings == ("animated_first_frame",)
    assert decoded.format == image_format


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_a_still_image_is_no_animation(image_format: str) -> None:
    assert decode(encode(plain(RED), image_format)).warnings == ()


def test_an_animation_broken_after_its_first_frame_is_its_first_frame() -> None:
    still, moving = encode(plain(RED), "GIF"), animation([RED, BLUE], "GIF")

    decoded = decode(moving[: len(still) + 10])

    assert decoded.pixels.getcolors() == [(48, RED)]


def test_a_multi_picture_jpeg_is_its_first_picture() -> None:
    decoded = decode(animation([RED, BLUE], "MPO", quality=100))

    assert decoded.format == "JPEG"
    assert decoded.warnings == ()
    assert np.abs(pixels_of(decoded).astype(int) - RED).max() <= 3


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_an_image_that_ends_early_is_refused(image_format: str, share: float) -> None:
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    whole = encode(noise, image_format)

    with pytest.raises((ImageTruncatedError, ImageUndecodableError)) as refused:
        decode(whole[: int(len(whole) * share)])
    assert image_format in refused.value.message


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP"])
def test_a_missing_second_half_is_called_by_its_name(image_format: str) -> None:
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    whole = encode(noise, image_format)

    with pytest.raises(ImageTruncatedError, match=f"^the {image_format} ends early$"):
        decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_image_is_decoded_or_refused_but_nothing_else(
    image_format: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(encode(scene(seed), image_format))
    for position in random.integers(8, len(data), 6):
        data[position] = int(random.integers(256))

    outcome = decode_or_refuse(bytes(data))

    assert isinstance(outcome, DecodedImage | ImageError)
    assert not isinstance(outcome, ImageError) or outcome.status < 500


def test_more_bytes_than_allowed_are_not_looked_at() -> None:
    with pytest.raises(ImageTooLargeError, match="1000000 bytes"):
        decode(bytes(1_000_001))


@pytest.mark.parametrize("size", [(10_000, 5_001), (5_001, 10_000), (16_385, 1), (1, 16_385)])
def test_a_header_over_the_limits_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLargeError):
        decode(png_claiming(*size))


def test_a_header_of_30000_squared_is_refused_before_decoding() -> None:
    with pytest.raises(ImageTooLargeError, match="more than 50000000 pixels"):
        decode(png_claiming(30_000, 30_000))


def test_an_image_just_within_the_limits_is_decoded() -> None:
    limits = DecodeLimits(10_000, 60 * 40, 60, LIMITS.formats)

    assert decode_image(encode(scene(0)), limits).pixels.size == (60, 40)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as decode.py does
def test_the_largest_limit_that_can_be_set_is_honoured() -> None:
    """Pillow has a limit of its own; the settings allow no more than that."""
    largest = next(
        bound.le for bound in Settings.model_fields["max_pixels"].metadata if hasattr(bound, "le")
    )
    limits = DecodeLimits(1_000_000, largest, 50_000, LIMITS.formats)

    with pytest.raises((ImageTruncatedError, ImageUndecodableError)):
        decode_image(png_claiming(40_000, largest // 40_000), limits)


def test_a_truncated_header_is_no_reason_to_name_a_size() -> None:
    with pytest.raises((ImageTruncatedError, ImageUndecodableError)):
        decode(png_claiming(30_000, 30_000)[:14])


def test_a_reduced_decode_stays_above_the_side_asked_for_and_tells_the_full_size() -> None:
    jpeg = encode(scene(0, (1600, 1200)), "JPEG", quality=95)
    limits = DecodeLimits(10_000_000, 50_000_000, 16384, frozenset({"jpeg"}))

    reduced = decode_image(jpeg, limits, least_side=336)

    assert reduced.size == (1600, 1200)
    assert reduced.pixels.size == (800, 600)
    full = np.asarray(decode_image(jpeg, limits).pixels.resize((224, 224)), np.float32)
    drift = np.abs(np.asarray(reduced.pixels.resize((224, 224)), np.float32) - full).mean()
    assert 0 < drift < 3


def test_only_jpegs_are_decoded_at_a_reduced_scale() -> None:
    limits = DecodeLimits(10_000_000, 50_000_000, 16384, frozenset({"png"}))

    assert decode_image(encode(scene(0, (1600, 1200))), limits, least_side=336).pixels.size == (
        1600,
        1200,
    )


@pytest.mark.parametrize(("orientation", "size"), [(1, (60, 40)), (6, (40, 60))])
def test_an_image_that_is_open_tells_its_upright_size_before_it_is_read(
    orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation

    with open_image(encode(scene(1), "JPEG", exif=exif), LIMITS) as image:
        assert image.size == size
        assert image.decode_bytes == 60 * 40 * 12
        decoded = image.read()

    assert decoded.size == decoded.pixels.size == size


def test_a_reduced_image_that_is_open_tells_its_full_size() -> None:
    with open_image(encode(scene(0, (800, 600)), "JPEG"), LIMITS) as image:
        assert image.size == (800, 600)
        assert image.read(least_side=300).pixels.size == (400, 300)


def test_memory_is_told_after_the_header_and_before_the_pixels() -> None:
    whole = encode(scene(1), "PNG")

    with open_image(whole[: len(whole) // 2], LIMITS) as image:
        assert image.decode_bytes == 60 * 40 * 10
        with pytest.raises(ImageTruncatedError):
            image.read()
    with pytest.raises(ImageTooLargeError):
        open_image(png_claiming(16_385, 1), LIMITS)


_OPEN_AND_READ = """
import sys
from pathlib import Path
from app.intake.decode import DecodeLimits, open_image
from app.intake.formats import FORMATS
def allotted():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
data = Path(sys.argv[1]).read_bytes()
before = allotted()
with open_image(data, DecodeLimits(len(data), 50_000_000, 16_384, frozenset(FORMATS))) as image:
    opened = allotted()
    decoded = image.read()
    print(opened - before, allotted() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells")
@pytest.mark.parametrize("image_format", FORMATS)
def test_opening_takes_none_of_the_memory_that_reading_takes(
    tmp_path: Path, image_format: str
) -> None:
    """libwebp would; and who opens an image then waits for its memory."""
    file = tmp_path / "picture"
    data = encode(Image.new("RGB", (4_000, 4_000)), image_format)
    file.write_bytes(data)

    shown = subprocess.run(
        [sys.executable, "-c", _OPEN_AND_READ, str(file)], capture_output=True, check=True
    )

    opened, read = map(int, shown.stdout.split())
    assert opened < len(data) + 4_000**2 // 2  # the file is written anew
    assert read > 4_000**2 * 2
