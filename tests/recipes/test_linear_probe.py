"""The probe learns what a line can separate, and is judged on images that it has not seen."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.recipes import linear_probe
from tests.recipes.conftest import Album

pytestmark = pytest.mark.recipes


def separable_images(offset: float) -> tuple[linear_probe.Vectors, linear_probe.Labels]:
    """Draw 40 vectors of 64 numbers and 2 labels, which lie `offset` apart."""
    labels = np.repeat(["cat", "dog"], 20)
    vectors = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    vectors[20:] += offset
    return vectors, labels


def test_what_a_line_separates_is_learnt() -> None:
    vectors, labels = separable_images(offset=9)

    assert linear_probe.predict_held_out(vectors, labels, 5).tolist() == labels.tolist()


def test_what_was_only_remembered_does_not_count() -> None:
    vectors, labels = separable_images(offset=0)
    probe = linear_probe.train_probe(vectors, labels)

    held_out = linear_probe.predict_held_out(vectors, labels, 5)

    assert probe.predict(vectors).tolist() == labels.tolist()
    assert np.mean(held_out == labels) < 0.8


def test_folders_of_photographs_are_told_apart(album: Album) -> None:
    paths, vectors = linear_probe.read_vectors(album.folder / "vectors.parquet")
    labels = np.array([Path(path).parent.name for path in paths])

    held_out = linear_probe.predict_held_out(vectors, labels, 5)

    assert held_out.tolist() == labels.tolist()


def test_one_folder_is_nothing_to_learn(
    album: Album, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album.folder)
    parquet = tmp_path / "one.parquet"
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    album.embed("photographs/cat", str(tmp_path), "-o", str(parquet))
    monkeypatch.setattr(sys, "argv", ["linear_probe.py", str(parquet)])

    with pytest.raises(SystemExit, match="two folders"):
        runpy.run_path(linear_probe.__file__, run_name="__main__")
