"""Planted near-duplicates are found, and nothing else than a threshold says."""

import numpy as np
import pytest

from examples.recipes.near_duplicates import find_duplicates, read_vectors
from tests.recipes.conftest import Album

pytestmark = pytest.mark.recipes


def test_planted_copies_are_found_and_the_largest_is_kept(album: Album) -> None:
    paths, vectors = read_vectors(album.folder / "vectors.parquet")

    groups = find_duplicates(vectors, 0.9998)

    found = {paths[kept]: [paths[row] for row in rows] for kept, rows in groups.items()}
    assert found == {
        "photographs/cat/0.jpg": ["photographs/cat/copy.jpg"],
        "photographs/rocket/0.jpg": ["photographs/rocket/again.webp"],
    }


@pytest.mark.parametrize("images", [40, 700])  # less than a block, and more than two
def test_groups_are_those_of_a_search_pair_by_pair(images: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(images, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    groups = find_duplicates(vectors, 0.9)

    kept: dict[int, list[int]] = {}
    for row in range(images):
        near = [first for first in kept if vectors[first] @ vectors[row] >= 0.9]
        kept.setdefault(near[0] if near else row, []).append(row)
    assert {first: list(rows) for first, rows in groups.items()} == {
        first: rows[1:] for first, rows in kept.items() if len(rows) > 1
    }
    for first, rows in groups.items():
        expected = vectors[list(rows)] @ vectors[first]
        assert list(rows.values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_vectors_have_length_1_and_the_largest_images_come_first(album: Album) -> None:
    paths, vectors = read_vectors(album.folder / "vectors.parquet")

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert {path.rpartition("/")[2] for path in paths[:2]} == {"0.jpg", "again.webp"}
    assert paths[-1] == "photographs/cat/5.jpg"
