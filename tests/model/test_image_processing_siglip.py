"""The image processor: settings from every file, the reference's values, every colour mode."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from model import CheckpointError, ConfigError, SiglipImageProcessor
from tests.reference import ReferenceCheckpoint

TOLERANCE = 1e-6  # in units of pixel values, which go from -1 to 1


def process_with_reference(images: list[Image.Image], **settings: Any) -> torch.Tensor:
    """Return the reference processor's pixel values."""
    processor = SiglipImageProcessorPil(**settings)
    return torch.as_tensor(processor(images, return_tensors="pt")["pixel_values"])


def assert_close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    """Every pixel value is within the tolerance."""
    torch.testing.assert_close(ours, expected, rtol=0, atol=TOLERANCE)


# Values


def test_a_batch_of_different_sizes_becomes_one_tensor(photographs: list[Image.Image]) -> None:
    pixel_values = SiglipImageProcessor()(photographs).pixel_values
    assert pixel_values.shape == (4, 3, 224, 224)
    assert pixel_values.dtype == torch.float32
    assert pixel_values.is_contiguous()


def test_the_two_filters_are_told_apart(photographs: list[Image.Image]) -> None:
    bicubic = SiglipImageProcessor(resample=Image.Resampling.BICUBIC)(photographs).pixel_values
    bilinear = SiglipImageProcessor(resample=Image.Resampling.BILINEAR)(photographs).pixel_values
    assert (bicubic - bilinear).abs().max() > 0.1


def test_small_images_are_enlarged_as_the_reference_does(photographs: list[Image.Image]) -> None:
    thumbnails = [photograph.resize((31, 17)) for photograph in photographs]
    ours = SiglipImageProcessor()(thumbnails).pixel_values
    assert_close(ours, process_with_reference(thumbnails))


def test_height_and_width_are_not_mixed_up(photographs: list[Image.Image]) -> None:
    ours = SiglipImageProcessor(height=64, width=96)(photographs).pixel_values
    assert ours.shape == (4, 3, 64, 96)
    assert_close(ours, process_with_reference(photographs, size={"height": 64, "width": 96}))


def test_other_means_deviations_and_factors_equal_the_references(
    photographs: list[Image.Image],
) -> None:
    settings: dict[str, Any] = {
        "image_mean": (0.48, 0.46, 0.41),
        "image_std": (0.27, 0.26, 0.28),
        "rescale_factor": 1 / 127.5,
    }
    ours = SiglipImageProcessor(**settings)(photographs).pixel_values
    expected = process_with_reference(photographs, **settings)
    torch.testing.assert_close(ours, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_pixel_values_go_from_minus_one_to_one() -> None:
    images = [Image.new("RGB", (8, 8), colour) for colour in ("black", "white")]
    black, white = SiglipImageProcessor()(images).pixel_values
    assert_close(black, torch.full((3, 224, 224), -1.0))
    assert_close(white, torch.full((3, 224, 224), 1.0))


def test_one_image_is_a_batch_of_one(photographs: list[Image.Image]) -> None:
    processor = SiglipImageProcessor()
    alone, listed = processor(photographs[0]), processor(photographs[:1])
    assert_close(alone.pixel_values, listed.pixel_values)


def test_images_keep_their_order(photographs: list[Image.Image]) -> None:
    processor = SiglipImageProcessor()
    reversed_values = processor(photographs[::-1]).pixel_values
    assert_close(reversed_values, processor(photographs).pixel_values.flip(0))


# The two steps apart


def test_resizing_gives_bytes_of_the_models_size(photographs: list[Image.Image]) -> None:
    pixels = SiglipImageProcessor(height=64, width=96).resize(photographs[1])
    assert pixels.shape == (64, 96, 3)
    assert pixels.dtype == np.uint8


def test_resizing_leaves_an_image_of_the_right_size_as_it_is(
    photographs: list[Image.Image],
) -> None:
    image = photographs[0]
    pixels = SiglipImageProcessor(height=image.height, width=image.width).resize(image)
    assert np.array_equal(pixels, np.asarray(image))


def test_the_two_steps_are_the_whole(photographs: list[Image.Image]) -> None:
    processor = SiglipImageProcessor()
    pixels = np.stack([processor.resize(photograph) for photograph in photographs])
    expected = processor(photographs).pixel_values
    assert_close(processor.normalize(torch.from_numpy(pixels)), expected)


def test_the_given_image_is_not_changed(photographs: list[Image.Image]) -> None:
    image = photographs[0].convert("LA")
    before = (image.mode, image.size, image.tobytes())
    SiglipImageProcessor()(image)
    assert (image.mode, image.size, image.tobytes()) == before


# Colour modes


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 128)), (255, 127, 127)),
        (Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)),
    ],
)
def test_transparency_is_laid_on_white(image: Image.Image, colour: tuple[int, int, int]) -> None:
    pixels = SiglipImageProcessor(height=4, width=4).resize(image)
    assert np.array_equal(np.unique(pixels.reshape(-1, 3), axis=0), [colour])


@pytest.mark.parametrize(("mode", "transparent"), [("RGB", (0, 0, 0)), ("L", 0)])
def test_a_transparent_colour_is_laid_on_white(
    mode: str, transparent: int | tuple[int, int, int]
) -> None:
    image = Image.new(mode, (8, 8), "black")
    image.info["transparency"] = transparent
    assert SiglipImageProcessor().resize(image).min() == 255


# Settings


def test_the_defaults_are_the_references(photographs: list[Image.Image]) -> None:
    ours = SiglipImageProcessor()(photographs).pixel_values
    assert_close(ours, process_with_reference(photographs))


def test_reads_what_the_reference_writes(
    tiny_checkpoint: ReferenceCheckpoint, photographs: list[Image.Image]
) -> None:
    ours = SiglipImageProcessor.from_pretrained(tiny_checkpoint.folder)
    reference = SiglipImageProcessorPil.from_pretrained(tiny_checkpoint.folder)
    expected = reference(photographs, return_tensors="pt")["pixel_values"]
    assert expected.shape == (4, 3, 32, 32)
    assert_close(ours(photographs).pixel_values, expected)


def test_every_setting_is_read() -> None:
    processor = SiglipImageProcessor.from_dict(
        {
            "size": {"height": 384, "width": 256},
            "resample": 2,
            "rescale_factor": 0.5,
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.4, 0.5, 0.6],
            "do_convert_rgb": True,
            "image_processor_type": "SiglipImageProcessor",
        }
    )
    assert processor == SiglipImageProcessor(
        height=384,
        width=256,
        resample=Image.Resampling.BILINEAR,
        rescale_factor=0.5,
        image_mean=(0.1, 0.2, 0.3),
        image_std=(0.4, 0.5, 0.6),
    )


NULLS = {
    "do_convert_rgb": None,
    "do_center_crop": None,
    "do_pad": None,
    "size": None,
    "resample": None,
    "rescale_factor": None,
    "image_mean": None,
    "image_std": None,
}


@pytest.mark.parametrize("settings", [{}, NULLS])
def test_absent_and_null_settings_take_the_defaults(settings: dict[str, Any]) -> None:
    assert SiglipImageProcessor.from_dict(settings) == SiglipImageProcessor()


def test_one_number_stands_for_both_sides_or_all_channels() -> None:
    processor = SiglipImageProcessor.from_dict({"size": 64, "image_mean": 0.25, "image_std": 1})
    assert (processor.height, processor.width) == (64, 64)
    assert processor.image_mean == (0.25, 0.25, 0.25)
    assert processor.image_std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("step", ["do_resize", "do_rescale", "do_normalize"])
@pytest.mark.parametrize("value", [False, 0, "false", None])
def test_a_step_turned_off_is_refused_by_name(step: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"sets {step} to"):
        SiglipImageProcessor.from_dict({step: value})


@pytest.mark.parametrize("step", ["do_center_crop", "do_pad"])
def test_a_step_that_no_checkpoint_has_is_refused_by_name(step: str) -> None:
    with pytest.raises(ConfigError, match=f"sets {step} to True"):
        SiglipImageProcessor.from_dict({step: True})


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 224}},
        {"size": {"height": 224}},
        {"size": {"height": 224, "width": 224, "longest_edge": 224}},
        {"size": {"height": 0, "width": 224}},
        {"size": {"height": "224", "width": 224}},
        {"size": [224, 224, 3]},
        {"size": "224"},
        {"resample": 17},
        {"resample": "bilinear"},
        {"rescale_factor": "a"},
        {"rescale_factor": [1]},
        {"rescale_factor": 0},
        {"rescale_factor": -1 / 255},
        {"rescale_factor": float("nan")},
        {"rescale_factor": float("inf")},
        {"rescale_factor": 10**400},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": "0.5"},
        {"image_std": ["a", "b", "c"]},
        {"image_std": {"r": 1}},
    ],
)
def test_a_setting_that_cannot_be_used_is_a_config_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json cannot be used"):
        SiglipImageProcessor.from_dict(settings)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rescale_factor_that_leaves_no_image_is_refused(factor: float) -> None:
    with pytest.raises(ConfigError, match="rescale_factor cannot be"):
        SiglipImageProcessor(rescale_factor=factor)


def test_settings_inside_a_processor_config_are_read(tmp_path: Path) -> None:
    combined = {"image_processor": {"resample": 2}, "processor_class": "SiglipProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(combined))
    processor = SiglipImageProcessor.from_pretrained(tmp_path)
    assert processor.resample == Image.Resampling.BILINEAR


@pytest.mark.parametrize(
    ("combined", "resample"),
    [
        ({"image_processor": {"resample": 2}, "processor_class": "SiglipProcessor"}, 2),
        ({"image_processor": None}, 3),
        ({"processor_class": "SiglipProcessor"}, 3),
    ],
    ids=["nested", "null", "legacy"],
)
def test_of_two_files_the_same_is_preferred_as_by_the_reference(
    tmp_path: Path, combined: dict[str, Any], resample: int
) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps(combined))
    (tmp_path / "preprocessor_config.json").write_text('{"resample": 3}')
    reference = SiglipImageProcessorPil.from_pretrained(tmp_path)
    processor = SiglipImageProcessor.from_pretrained(tmp_path)
    assert processor.resample == reference.resample == resample


def test_a_processor_config_without_settings_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text('{"processor_class": "SiglipProcessor"}')
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        SiglipImageProcessor.from_pretrained(tmp_path)


def test_nested_settings_that_are_no_object_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text('{"image_processor": "SiglipImageProcessor"}')
    with pytest.raises(ConfigError, match=r"processor_config\.json .* image_processor"):
        SiglipImageProcessor.from_pretrained(tmp_path)


def test_a_missing_file_is_refused_rather_than_guessed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        SiglipImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        SiglipImageProcessor.from_pretrained(tmp_path)
