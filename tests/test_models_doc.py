"""docs/models.md: its table against the code that computes it, and its example against a model."""

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from transformers import SiglipImageProcessorPil

from app.engine.towers.catalogue import describe_models
from app.settings import Settings
from model import Siglip2ImageProcessor, SiglipImageProcessor
from tests.app.answers import cosines, post_images
from tests.app.images import encode, oriented, scene
from tests.app.service_server import run_service
from tests.naflex_reference import write_naflex_checkpoint
from tests.reference import (
    build_full_model,
    build_vision_model,
    draw_lively_weights,
    edit_tensors,
    save_checkpoint,
    tiny_vision_config,
    write_checkpoint,
)

DOCUMENT = Path(__file__).parents[1] / "docs" / "models.md"


def test_the_table_holds_what_info_prints() -> None:
    documented = {
        cells[0]: cells[1:6]
        for line in DOCUMENT.read_text().splitlines()
        if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0].startswith("google/")
    }
    printed = {
        cells[0]: cells[2:7]
        for line in describe_models().splitlines()[1:]
        if (cells := re.split(r"\s{2,}", line.strip()))
    }

    assert documented == printed


def rectangle_of_patch() -> Callable[[int, dict[str, Any]], tuple[float, float, float, float]]:
    """Return the function that the document shows."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 # our own document
    function: Callable[[int, dict[str, Any]], tuple[float, float, float, float]]
    function = names["rectangle_of_patch"]
    return function


@pytest.mark.parametrize(
    ("model", "grid", "patch", "edges"),
    [
        ("base-patch16-224", (14, 14), 17, [137, 34, 183, 69]),
        ("base-patch16-naflex", (14, 18), 25, [249, 34, 284, 69]),
    ],
)
def test_the_documented_numbers_are_what_the_example_gives(
    model: str, grid: tuple[int, int], patch: int, edges: list[int]
) -> None:
    naflex = model.endswith("naflex")
    processor = Siglip2ImageProcessor() if naflex else SiglipImageProcessor()
    height, width, _ = processor.resize(Image.new("RGB", (640, 480))).shape
    assert (height // 16, width // 16) == grid
    patches = {"grid": grid, "patch_size": 16, "input_size": [height, width]}
    item = {"image": {"width": 640, "height": 480}, "patches": patches}

    assert [round(edge) for edge in rectangle_of_patch()(patch, item)] == edges
    assert f"{edges[0]} to {edges[2]} across and {edges[1]} to {edges[3]} down" in (
        " ".join(DOCUMENT.read_text().split())
    )


def test_probabilities_of_texts_are_the_references_logits(tmp_path: Path) -> None:
    full = build_full_model(build_vision_model(tiny_vision_config()))
    draw_lively_weights(full.text_model, seed=1)
    with torch.no_grad():
        full.logit_scale.fill_(2.0)
        full.logit_bias.fill_(-3.0)
    save_checkpoint(full.vision_model, tmp_path)
    image, texts = scene(0), torch.tensor([[4, 5, 6, 7], [8, 9, 10, 11]])
    pixel_values = SiglipImageProcessorPil.from_pretrained(tmp_path)(image, return_tensors="pt")
    with torch.inference_mode():
        text_vectors = full.get_text_features(input_ids=texts).pooler_output.numpy()
        expected = full(input_ids=texts, **pixel_values).logits_per_image[0].numpy()

    with run_service(Settings(model=str(tmp_path), dtype="float32")) as service:
        service.wait_for_status("ok")
        (item,) = post_images(service.client, "raw", [encode(image)]).json()["data"]

    image_vectors = np.tile(item["embedding"], (2, 1))
    logits = cosines(text_vectors, image_vectors) * np.exp(2.0) - 3.0
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert abs(expected[0] - expected[1]) > 0.1


def write_fixed(folder: Path, side: int) -> None:
    write_checkpoint(folder, tiny_vision_config(image_size=side))


# What writes a checkpoint, and the grid that an image of 190 x 95 pixels gets.
TOWERS: dict[str, tuple[Callable[[Path], object], list[int]]] = {
    "fixed": (partial(write_fixed, side=32), [4, 4]),
    "the last 6 pixels make no whole patch": (partial(write_fixed, side=38), [4, 4]),
    "naflex": (write_naflex_checkpoint, [3, 6]),
}


def take_attention_out(folder: Path) -> None:
    """Make each vector know of its own patch only."""
    tensors = load((folder / "model.safetensors").read_bytes())
    outputs = [name for name in tensors if re.fullmatch(r"vision_model.*\.out_proj\.weight", name)]
    edit_tensors(folder, {name: torch.zeros_like(tensors[name]) for name in outputs})


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("tower", TOWERS)
def test_what_changes_in_a_patchs_rectangle_changes_that_patch(
    tmp_path: Path, tower: str, orientation: int
) -> None:
    """The rectangle is in the upright image, however its file holds it."""
    write, grid = TOWERS[tower]
    write(tmp_path)
    take_attention_out(tmp_path)
    image = scene(0, (190, 95))
    with run_service(Settings(model=str(tmp_path), dtype="float32")) as service:
        service.wait_for_status("ok")

        def embed(upright: Image.Image) -> dict[str, Any]:
            stored, exif = oriented(upright, orientation)
            answer = post_images(
                service.client, "raw", [encode(stored, exif=exif)], {"output": "patches"}
            )
            item: dict[str, Any] = answer.json()["data"][0]
            return item

        before = embed(image)
        assert before["patches"]["grid"] == grid
        for patch in range(math.prod(grid)):
            left, top, right, bottom = rectangle_of_patch()(patch, before)
            changed = np.array(image)
            margin_x, margin_y = (right - left) / 5, (bottom - top) / 5
            changed[
                round(top + margin_y) : round(bottom - margin_y),
                round(left + margin_x) : round(right - margin_x),
            ] ^= 255
            after = embed(Image.fromarray(changed))
            difference = np.subtract(after["patches"]["embedding"], before["patches"]["embedding"])
            change = np.linalg.norm(difference, axis=1)
            assert change.argmax() == patch
            assert np.sort(change)[-2] < change[patch] / 2
