"""The self-test of a start: whatever gives other vectors in some batch ends it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from app.engine.protocol import Float32Array, SelfTestError, UInt8Array, Vectors
from app.engine.towers.fixed_family import FIXED
from app.engine.towers.selftest import check_against_reference

IMAGES = FIXED.draw_test_images(8, 8)
SIZES = (1, 4, 8)

Damage = Callable[[Float32Array], Float32Array]


def embed(images: Sequence[UInt8Array], _patches: bool) -> Vectors:
    """Stand in for a model: an image's vector is its own pixels, and so are its patches."""
    rows = np.stack([image.reshape(-1) for image in images]).astype(np.float32)
    return Vectors(rows, rows.reshape(len(rows), 4, -1))


def check(embed: Callable[[Sequence[UInt8Array], bool], Vectors]) -> float:
    return check_against_reference(embed, IMAGES, embed_reference(), SIZES, "float32")


def embed_reference() -> Vectors:
    return embed(IMAGES, True)


def test_equal_vectors_have_a_cosine_of_one() -> None:
    assert check(embed) == pytest.approx(1, abs=1e-6)


def swap_halves(rows: Float32Array) -> Float32Array:
    return np.roll(rows, len(rows) // 2, axis=0)


def repeat_the_first(rows: Float32Array) -> Float32Array:
    return np.repeat(rows[:1], len(rows), axis=0)


def shift(rows: Float32Array) -> Float32Array:
    return np.roll(rows, 1, axis=0)


def lose_the_last(rows: Float32Array) -> Float32Array:
    return np.concatenate([rows[:-1], np.full_like(rows[:1], np.nan)])


def lengthen(rows: Float32Array) -> Float32Array:
    return 3 * rows


def shorten(rows: Float32Array) -> Float32Array:
    return rows * np.float32(0.01)


def test_vectors_that_only_the_reference_has_end_it() -> None:
    with pytest.raises(SelfTestError, match="self-test failed"):
        check(lambda images, patches: embed(images, patches)._replace(pooled=None))


@pytest.mark.parametrize(
    "damage",
    [
        swap_halves,
        repeat_the_first,
        shift,
        np.flipud,
        lose_the_last,
        np.negative,
        lengthen,
        shorten,
    ],
)
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("part", ["pooled", "patches"])
def test_one_size_of_batch_that_goes_wrong_is_enough(damage: Damage, size: int, part: str) -> None:
    def embed_badly(images: Sequence[UInt8Array], patches: bool) -> Vectors:
        vectors = embed(images, patches)
        if len(images) != size:
            return vectors
        return vectors._replace(**{part: damage(getattr(vectors, part))})

    with pytest.raises(SelfTestError, match="self-test failed"):
        check(embed_badly)
