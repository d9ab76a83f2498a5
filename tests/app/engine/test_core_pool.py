"""Threads of one core each: they keep to it, and leave all cores to others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from app.engine.core_pool import CorePool, start_core_pool
from app.engine.embedder import load_embedder
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
        (2, [[0, 1]]),
        (3, [[0], [1], [2]]),
        (4, [[0, 1], [2, 3]]),
        (6, [[0, 1], [2, 3], [4, 5]]),
        (9, [[0, 1], [2], [3, 4], [5], [6, 7], [8]]),
    ],
)
def test_cores_take_whole_images_a_few_at_a_time(images: int, parts: list[list[int]]) -> None:
    """With three cores, and two images at once."""
    pool = CorePool(torch.device("cpu"), max_patches=500)

    assert pool.map(lambda part: part, list(range(images))) == parts
    assert [part.tolist() for part in pool.map(lambda part: part, torch.arange(images))] == parts


def test_where_it_comes_out_even_each_image_is_one_cores_and_else_all_cores() -> None:
    pool = CorePool(torch.device("cpu"), max_patches=5000)

    assert pool.map(lambda _: torch.get_num_threads(), [0] * 6) == [1] * 6
    assert pool.map(lambda _: torch.get_num_threads(), [0] * 4) == [CORES] * 4


def test_another_device_gets_a_batch_as_it_is() -> None:
    pool = CorePool(torch.device("meta"), max_patches=5000)

    assert pool.map(lambda part: part, list(range(6))) == [list(range(6))]


def test_a_loaded_model_leaves_all_cores_to_the_thread_that_runs_its_batches(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started after the self-test, it took one, and single images twice their time."""
    monkeypatch.setattr("app.engine.embedder._FEWEST_PARALLEL_WEIGHTS", 0)
    naflex = write_naflex_checkpoint(tmp_path / "naflex", tiny_naflex_config())

    for folder in (tiny_checkpoint.folder, naflex.folder):
        load_embedder(str(folder), "cpu", "float32", 2 * CORES)
        assert cores_of_a_new_thread() == CORES
