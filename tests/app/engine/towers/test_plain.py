"""Batches of unequal images shared among threads, with a tower that only sums."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from app.engine.protocol import Pixels
from app.engine.towers.batch import Batch
from app.engine.towers.plain import PlainRunner

LENGTHS = [3, 1, 4, 2]


class Sums(NamedTuple):
    """What a tower answers: each image's mean, and each patch's value."""

    last_hidden_state: torch.Tensor
    pooler_output: torch.Tensor


def collate(pixels: Pixels) -> Batch:
    """Take each pixel for a patch."""
    patches = np.concatenate([image.reshape(-1, 3) for image in pixels])
    lengths = [image.shape[0] * image.shape[1] for image in pixels]
    ends = np.cumsum(lengths).tolist()
    return Batch(patches.shape, lambda out: np.copyto(out, patches), (lengths,), ends)


def tower(patches: torch.Tensor, lengths: list[int]) -> Sums:
    means = [own.float().mean(0) for own in torch.split(patches, lengths)]
    return Sums(patches.float(), torch.stack(means))


@pytest.fixture(params=[(1, 4), (2, 4), (2, 5000)])
def runner(request: pytest.FixtureRequest) -> PlainRunner:
    """A runner with one thread, one with two, and one with two that take image by image."""
    threads, max_patches = torch.get_num_threads(), request.param[1]
    torch.set_num_threads(request.param[0])
    try:
        return PlainRunner(tower, collate, torch.device("cpu"), max_patches)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_images_keep_their_order_and_their_patches(runner: PlainRunner, images: int) -> None:
    pixels = [np.full((1, length, 3), length, np.uint8) for length in LENGTHS[:images]]

    vectors = runner.begin(pixels, len(pixels))()

    assert vectors.pooled[:, 0].tolist() == LENGTHS[:images]
    assert vectors.patches is not None
    assert [own.shape for own in vectors.patches] == [(n, 3) for n in LENGTHS[:images]]
    assert all((own == len(own)).all() for own in vectors.patches)


@pytest.mark.parametrize("patches_of", [1, 2, 3, 4])
def test_the_first_images_only_have_patches(runner: PlainRunner, patches_of: int) -> None:
    """Whichever cores have computed them."""
    pixels = [np.full((1, length, 3), length, np.uint8) for length in LENGTHS]

    vectors = runner.begin(pixels, patches_of)()

    assert vectors.pooled[:, 0].tolist() == LENGTHS
    assert vectors.patches is not None
    assert [own[:, 0].tolist() for own in vectors.patches] == [
        [length] * length for length in LENGTHS[:patches_of]
    ]


@pytest.mark.parametrize("images", [1, 2])
def test_patches_are_left_out_when_not_asked_for(runner: PlainRunner, images: int) -> None:
    pixels = [np.ones((2, 2, 3), np.uint8)] * images
    assert runner.begin(pixels, 0)().patches is None
