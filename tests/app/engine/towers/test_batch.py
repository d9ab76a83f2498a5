"""What is written into a batch's array, and what of a tower's outputs goes down."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from app.engine.towers.batch import Batch, write_rows

ENDS = (2, 3, 6)


class Outputs(NamedTuple):
    """What a tower answers."""

    last_hidden_state: torch.Tensor
    pooler_output: torch.Tensor | None


def test_rows_are_written_whatever_memory_they_lie_in() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (4, 5, 3)).astype(np.uint8)
    read_only = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    turned = np.asfortranarray(image)
    out = np.zeros((3, 4, 5, 3), np.uint8)

    write_rows([image, read_only, turned], out)

    assert (out == image).all()


def test_token_ids_are_written() -> None:
    rows = [np.array([1, -2], np.int64), np.array([2**40, 4], np.int64)]
    out = np.zeros((2, 2), np.int64)

    write_rows(rows, out)

    assert out.tolist() == [[1, -2], [2**40, 4]]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (np.zeros((1, 3), np.uint8), ValueError),  # assigned, it would be repeated
        (np.zeros((3, 2), np.uint8), ValueError),  # as many bytes
        (np.zeros((2, 3), np.int8), TypeError),
        (np.zeros((2, 3), np.float32), TypeError),
    ],
)
def test_nothing_is_broadcast_or_cast(row: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error):
        write_rows([np.zeros((2, 3), np.uint8), row], np.zeros((2, 2, 3), np.uint8))


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_rows_are_written_as_there_are_places(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} rows for 2 places"):
        write_rows([np.zeros((2, 3), np.uint8)] * count, np.zeros((2, 2, 3), np.uint8))


def test_nothing_is_written_to_a_copy() -> None:
    with pytest.raises(TypeError, match="contiguous"):
        write_rows([np.ones((2, 3), np.uint8)], np.zeros((1, 3, 2), np.uint8).transpose(0, 2, 1))


@pytest.mark.parametrize("patches_of", [1, 2, 3])
@pytest.mark.parametrize("ends", [None, ENDS])
def test_only_the_patches_that_were_asked_for_go_down(
    patches_of: int, ends: tuple[int, ...] | None
) -> None:
    """As a part of the tower's own memory: nothing is computed, or copied, for the others."""
    rows = 3 if ends is None else ENDS[-1]
    outputs = Outputs(torch.zeros(rows, 7), torch.zeros(3, 7))

    wanted = Batch((), print, ends=ends).pick_wanted(outputs, patches_of)

    assert len(wanted["patches"]) == (patches_of if ends is None else ENDS[patches_of - 1])
    assert wanted["patches"].data_ptr() == outputs.last_hidden_state.data_ptr()
    assert wanted["pooled"] is outputs.pooler_output


def test_without_head_and_without_patches_nothing_goes_down() -> None:
    assert Batch((), print).pick_wanted(Outputs(torch.zeros(2, 3), None), 0) == {}


def test_each_image_gets_its_own_patches() -> None:
    patches = np.arange(3, dtype=np.float32)[:, None]

    vectors = Batch((), print, ends=ENDS).collect({"patches": patches})

    assert vectors.patches is not None
    assert [own[:, 0].tolist() for own in vectors.patches] == [[0, 1], [2]]
