"""Images of any shape are decoded within the limits that the settings have for a start."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from app.errors import ImageError, ImageTooLargeError
from app.intake.decode import DecodeLimits, open_image
from app.intake.decode_process import DecodeProcess, PillowResize
from app.settings import Settings
from model.image_processing_siglip2 import get_image_size_for_max_num_patches
from tests.app.images import encode, png_claiming

SETTINGS = Settings()
LIMITS = DecodeLimits(
    SETTINGS.max_image_bytes,
    SETTINGS.max_pixels,
    SETTINGS.max_side,
    frozenset({*SETTINGS.formats, "tiff"}),
)
LARGEST_INPUT = 512
WIDEST_JPEG = 65_500


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    process = DecodeProcess(LIMITS)
    yield process
    process.close()


@pytest.mark.parametrize(
    "size", [(8160, 6144), (8192, 6144), (8688, 5792), (9504, 6336), (790, 36_861), (8000, 8000)]
)
def test_what_cameras_and_scrolling_screens_give_is_not_too_large(size: tuple[int, int]) -> None:
    with open_image(png_claiming(*size), LIMITS) as image:
        assert image.size == size


@pytest.mark.parametrize("size", [(8000, 8001), (65_536, 1), (1, 65_536), (1, 2**31 - 1)])
def test_more_is(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLargeError):
        open_image(png_claiming(*size), LIMITS)


@pytest.mark.parametrize("size", [(1, WIDEST_JPEG), (WIDEST_JPEG, 1), (16, 65_500), (65_500, 16)])
@pytest.mark.parametrize("image_format", ["jpeg", "png", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("kind", ["exact", "NaFlex", "reduced"])
def test_a_strip_is_decoded_and_resized_within_its_memory(
    process: DecodeProcess, size: tuple[int, int], image_format: str, kind: str
) -> None:
    strip = Image.linear_gradient("L").resize(size)
    input_size = (LARGEST_INPUT, LARGEST_INPUT)
    if kind == "NaFlex":
        height, width = get_image_size_for_max_num_patches(size[1], size[0], 16, 1024)
        input_size = width, height
    least_side = 3 * LARGEST_INPUT // 2 if kind == "reduced" else None
    resize = None if kind == "reduced" else PillowResize(input_size, Image.Resampling.BICUBIC)

    received = process.decode(encode(strip, image_format), least_side, lambda _: resize)

    assert received.size == size
    shown = np.frombuffer(received.rgb, np.uint8).reshape(*received.pixels_size[::-1], 3)
    expected = strip.convert("RGB")
    if resize is not None:
        expected = expected.resize(*resize)
    assert np.abs(shown.astype(int) - np.asarray(expected)).max() <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="no limit of memory here")
@pytest.mark.parametrize("size", [(976, 65_535), (65_535, 976)])
def test_the_largest_strips_have_the_memory_and_the_time(
    process: DecodeProcess, size: tuple[int, int]
) -> None:
    image = Image.new("LA", size, (0, 128))

    received = process.decode(
        encode(image, compress_level=1),
        None,
        lambda _: PillowResize((2, 2), Image.Resampling.BICUBIC),
    )

    assert received.rgb == bytes((127,)) * 12


def test_memory_for_resizing_a_tall_strip_with_torch_is_asked_for(process: DecodeProcess) -> None:
    """PyTorch makes each of its rows as wide as the model's input first."""
    asked: list[int] = []
    data = encode(Image.new("L", (1, 65_535)))

    process.decode(data, 3 * LARGEST_INPUT // 2, lambda opened: asked.append(opened.decode_bytes))

    assert asked[0] >= LARGEST_INPUT * 3 * 65_535


def test_a_strip_that_is_cut_off_is_refused_like_any_image() -> None:
    whole = encode(Image.effect_noise((1, 65_535), 50))
    with pytest.raises(ImageError, match="ends early"), open_image(whole[:-5000], LIMITS) as image:
        image.read()
