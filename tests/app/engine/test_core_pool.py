"""Threads of one core each: they keep to it, and leave all cores to others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from app.engine.core_pool import start_core_pool
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


def test_a_loaded_model_leaves_all_cores_to_the_thread_that_runs_its_batches(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started after the self-test, it took one, and single images twice their time."""
    monkeypatch.setattr("app.engine.embedder._FEWEST_PARALLEL_WEIGHTS", 0)
    naflex = write_naflex_checkpoint(tmp_path / "naflex", tiny_naflex_config())

    for folder in (tiny_checkpoint.folder, naflex.folder):
        load_embedder(str(folder), "cpu", "float32", 2 * CORES)
        assert cores_of_a_new_thread() == CORES
