"""Threads of one core each: they keep to it, and leave all cores to others."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engine.embedder import load_embedder
from app.engine.towers.core_pool import CorePool, start_core_pool
from tests.naflex_reference import tiny_naflex_config, write_naflex_checkpoint
from tests.reference import ReferenceCheckpoint

CORES = 3


@pytest.fixture(autouse=True)
def _cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


def cores_of_a_new_thread() -> int:
    """Return how many cores PyTorch takes in a thread that has not computed yet."""
    with ThreadPoolExecutor(1) as new:
        return new.submit(torch.get_num_threads).result()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_each_thread_keeps_to_one_core_and_leaves_all_to_others(threads: int) -> None:
    with start_core_pool(threads) as pool:
        assert torch.get_num_threads() == CORES
        assert cores_of_a_new_thread() == CORES
        assert {pool.submit(torch.get_num_threads).result() for _ in range(8)} == {1}


@pytest.mark.parametrize(
    ("images", "parts"),
    [
        (1, [[0]]),
        (3, [[0], [1], [2]]),
        (5, [[0, 1, 2, 3, 4]]),
        (7, [[0, 1, 2, 3], [4, 5, 6]]),
        (9, [[0, 1], [2], [3, 4], [5], [6, 7], [8]]),
        (12, [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]),
    ],
)
def test_each_of_three_cores_takes_two_images_at_once(images: int, parts: list[list[int]]) -> None:
    pool = CorePool(torch.device("cpu"), max_patches=500)

    assert pool.map(lambda part: part, list(range(images))) == parts
    assert [part.tolist() for part in pool.map(lambda part: part, torch.arange(images))] == parts


def test_one_core_takes_two_images_at_once() -> None:
    torch.set_num_threads(1)
    pool = CorePool(torch.device("cpu"), max_patches=500)

    assert pool.map(lambda part: part, list(range(5))) == [[0, 1], [2, 3], [4]]


def test_an_image_larger_than_a_cores_share_goes_alone() -> None:
    """And where images come out even each is one core's, else all cores'."""
    pool = CorePool(torch.device("cpu"), max_patches=5000)

    assert pool.map(lambda part: (len(part), torch.get_num_threads()), [0] * 6) == [(1, 1)] * 6
    assert pool.map(lambda part: (len(part), torch.get_num_threads()), [0] * 5) == [
        (3, CORES),
        (2, CORES),
    ]


def test_another_device_gets_a_batch_as_it_is() -> None:
    pool = CorePool(torch.device("meta"), max_patches=5000)

    assert pool.map(lambda part: part, list(range(6))) == [list(range(6))]


def test_a_fault_is_raised_when_no_core_computes_any_more() -> None:
    """What follows a lack of memory is to have all of it."""
    pool = CorePool(torch.device("cpu"), max_patches=5000)
    first_has_failed, last_has_ended = threading.Event(), threading.Event()

    def forward(images: list[int]) -> None:
        if images == [0]:
            first_has_failed.set()
            raise MemoryError
        if images == [2]:
            first_has_failed.wait()
            time.sleep(0.05)
            last_has_ended.set()

    with pytest.raises(MemoryError):
        pool.map(forward, [0, 1, 2])
    assert last_has_ended.is_set()


def test_vectors_are_the_same_however_a_batch_is_divided(
    tiny_checkpoint: ReferenceCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 224, 224, 3), np.uint8)
    together = load_embedder(str(tiny_checkpoint.folder), "cpu", "float32").embed(pixels, True)

    monkeypatch.setattr("app.engine.towers.core_pool._PATCHES_OF_A_CORE", 2 * 196)
    divided = load_embedder(str(tiny_checkpoint.folder), "cpu", "float32").embed(pixels, True)

    assert together.patches is not None
    assert divided.patches is not None
    np.testing.assert_allclose(divided.pooled, together.pooled, atol=1e-5)
    np.testing.assert_allclose(divided.patches, together.patches, atol=1e-5)


def test_a_loaded_model_leaves_all_cores_to_the_thread_that_runs_its_batches(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started after the self-test, it took one, and single images twice their time."""
    monkeypatch.setattr("app.engine.towers.device._FEWEST_PARALLEL_WEIGHTS", 0)
    monkeypatch.setattr("app.engine.towers.device.count_cores", lambda: CORES)
    naflex = write_naflex_checkpoint(tmp_path / "naflex", tiny_naflex_config())

    for folder in (tiny_checkpoint.folder, naflex.folder):
        load_embedder(str(folder), "cpu", "float32", 2 * CORES)
        assert cores_of_a_new_thread() == CORES
