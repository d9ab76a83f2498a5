"""The picture: each image beside its patches in colours that mean the same in all images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.recipes.segment_patches import (
    WIDTH,
    Patches,
    colour_by_cluster,
    colour_by_pca,
    draw_images,
    read_patches,
)
from tests.recipes.conftest import Album

pytestmark = pytest.mark.recipes


def read_image(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")


def test_patches_are_those_of_every_image_that_has_a_vector(album: Album) -> None:
    images = list(read_patches(album.folder / "patches.parquet"))

    assert len(images) == 26
    assert {image.vectors.shape for image in images} == {(4, 4, 32)}


def test_each_image_stands_beside_its_patches(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album.folder)
    images = [image for image in read_patches(Path("patches.parquet")) if image.path.stem == "0"]

    sheet = draw_images(images, clusters=3)

    photographs = [read_image(image.path) for image in images]
    heights = [round(photograph.height * WIDTH / photograph.width) for photograph in photographs]
    assert sheet.size == (3 * WIDTH, sum(heights))
    shown = np.asarray(photographs[1].resize((WIDTH, heights[1])))
    top = heights[0]
    np.testing.assert_array_equal(np.asarray(sheet)[top : top + heights[1], :WIDTH], shown)
    assert len(np.unique(np.asarray(sheet)[:, 2 * WIDTH :].reshape(-1, 3), axis=0)) == 3


def test_left_and_right_of_an_image_are_two_segments(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    vectors[:, 3:] += 20
    Image.new("RGB", (60, 40)).save(tmp_path / "plain.png")

    sheet = draw_images([Patches(tmp_path / "plain.png", vectors)], clusters=2)

    segments = np.asarray(sheet)[:, 2 * WIDTH :]
    left, right = segments[0, 0], segments[0, -1]
    assert (left != right).any()
    assert (segments[:, : WIDTH // 2] == left).all()
    assert (segments[:, WIDTH // 2 :] == right).all()


def test_colours_follow_the_direction_of_most_difference() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    vectors[:, 0] = np.arange(50)

    reds = colour_by_pca(vectors)[:, 0].astype(int)

    steps = np.diff(reds)
    assert (steps >= 0).all() or (steps <= 0).all()
    assert {reds.min(), reds.max()} == {0, 255}


def test_equal_patches_have_one_colour() -> None:
    vectors = np.repeat(np.eye(3, 8, dtype=np.float32), 5, axis=0)

    colours = colour_by_cluster(vectors, 3)

    assert len(np.unique(colours, axis=0)) == 3
    assert (colours.reshape(3, 5, 3) == colours[::5, None]).all()
