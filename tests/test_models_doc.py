"""docs/models.md: its table against the code that computes it, and its example against a model."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.engine.catalogue import describe_models
from app.settings import Settings
from tests.app.answers import post_images
from tests.app.images import encode, scene
from tests.app.service_server import run_service
from tests.reference import build_vision_model, save_checkpoint, tiny_vision_config

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


def test_the_documented_numbers_are_what_the_example_gives() -> None:
    patches = {"grid": [14, 14], "patch_size": 16, "input_size": [224, 224]}
    item = {"image": {"width": 640, "height": 480}, "patches": patches}

    assert [round(edge) for edge in rectangle_of_patch()(17, item)] == [137, 34, 183, 69]


@pytest.mark.parametrize("side", [32, 38])  # 38: the last 6 pixels make no whole patch
def test_what_changes_in_a_patchs_rectangle_changes_that_patch(tmp_path: Path, side: int) -> None:
    reference = build_vision_model(tiny_vision_config(image_size=side))
    with torch.no_grad():  # without attention a vector knows of its own patch only
        for layer in reference.encoder.layers:
            layer.self_attn.out_proj.weight.zero_()
    save_checkpoint(reference, tmp_path)
    image = scene(0, (190, 95))
    with run_service(Settings(model=str(tmp_path), dtype="float32")) as service:
        service.wait_for_status("ok")

        def embed(image: Image.Image) -> dict[str, Any]:
            answer = post_images(service.client, "raw", [encode(image)], {"output": "patches"})
            item: dict[str, Any] = answer.json()["data"][0]
            return item

        before = embed(image)
        rows, columns = before["patches"]["grid"]
        assert rows == columns == 4
        for patch in range(rows * columns):
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
