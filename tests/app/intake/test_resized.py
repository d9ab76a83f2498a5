"""What is left out on the way to the model's input changes no bit of it.

The plain way stands beside: lay on white as the reference does, turn upright, resize.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from transformers import SiglipImageProcessorPil

from app.intake.decode import DecodeLimits, OpenImage, open_image
from app.intake.orientation import resize_upright, turn_upright
from app.intake.pixels import to_grey_or_rgb
from tests.app.images import encode, oriented, scene

LIMITS = DecodeLimits(2**26, 10**8, 65_535, frozenset({"jpeg", "png", "webp", "tiff"}))
MODES = ("RGB", "L", "1", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr")
FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
IMAGES_OF_A_MODE = 400


def resized_plainly(
    image: Image.Image, orientation: int, size: tuple[int, int], resample: int
) -> Image.Image:
    """Lay an image on white as the reference does, turn all of it, and resize it."""
    on_white = Image.fromarray(np.asarray(SiglipImageProcessorPil().convert_to_rgb(image)))
    return turn_upright(on_white, orientation).resize(size, resample)


def random_image(random: np.random.Generator, mode: str) -> Image.Image:
    """Return noise, blocks or edges of any shape; what has alpha is opaque half of the time."""
    height, width = np.exp(random.uniform(0, np.log(150), 2)).astype(int)
    values = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    if random.random() < 0.3:
        values = np.where(values < 128, 0, 255).astype(np.uint8)
    if random.random() < 0.5:
        values[..., 3] = 255
    image = Image.fromarray(values, "RGBA")
    if mode in ("RGBA", "LA", "PA"):
        return image.convert(mode)
    return image.convert("RGB").convert(mode)


def random_images(seed: int, mode: str) -> Iterator[tuple[Image.Image, tuple[int, int], int]]:
    """Yield images of a mode, each with a size and a filter."""
    random = np.random.default_rng(seed)
    for _ in range(IMAGES_OF_A_MODE):
        width, height = np.exp(random.uniform(0, np.log(80), 2)).astype(int).tolist()
        yield random_image(random, mode), (width, height), FILTERS[random.integers(len(FILTERS))]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_turned_any_way_is_resized_to_the_same_bits(mode: str) -> None:
    for index, (image, size, resample) in enumerate(random_images(MODES.index(mode), mode)):
        orientation = 1 + index % 8
        expected = resized_plainly(image, orientation, size, resample)

        ours = resize_upright(to_grey_or_rgb(image, []), orientation, size, resample)

        assert ours.convert("RGB").tobytes() == expected.tobytes(), (image.size, size, resample)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photograph_on_its_side_is_resized_to_the_same_bits(mode: str, orientation: int) -> None:
    upright = scene(orientation, (1601, 1203)).effect_spread(40).convert(mode)
    stored, exif = oriented(upright, orientation)
    size, resample = (224, 256), Image.Resampling.BICUBIC

    with opened(encode(stored, "PNG", exif=exif, compress_level=1)) as image:
        resized = image.read(resize=(size, resample))

    expected = upright.convert("RGB").resize(size, resample)
    assert resized.pixels.mode == "RGB"
    assert resized.pixels.tobytes() == expected.tobytes()
    assert resized.size == (1601, 1203)
    assert resized.warnings == (("exif_rotated",) if orientation > 1 else ())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_alpha_takes_no_value_of_any_channel_away(mode: str) -> None:
    ramp = Image.linear_gradient("L")  # every value
    image = Image.merge(
        "RGBA", (ramp, ramp.rotate(90), ramp.rotate(180), Image.new("L", (256, 256), 255))
    )

    noted: list[str] = []
    flat = to_grey_or_rgb(image.convert(mode), noted)

    expected = np.asarray(SiglipImageProcessorPil().convert_to_rgb(image.convert(mode)))
    assert np.array_equal(np.asarray(flat.convert("RGB")), expected)
    assert noted == []


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_what_has_no_colour_is_resized_as_one_channel(mode: str) -> None:
    image = scene(1).convert("L").convert(mode)

    assert to_grey_or_rgb(image, []).mode == "L"


def test_16_bit_grey_is_resized_to_the_same_bits() -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (90, 70), np.uint16)
    data = encode(Image.fromarray(values))
    with opened(data) as image:
        whole = image.read().pixels
    with opened(data) as image:
        resized = image.read(resize=((24, 32), Image.Resampling.BICUBIC)).pixels

    assert resized.tobytes() == whole.resize((24, 32), Image.Resampling.BICUBIC).tobytes()


def opened(data: bytes) -> OpenImage:
    return open_image(data, LIMITS)
