"""Rows of a table in a file: the same as those of the tensor, without the table in memory."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.tensor_rows import TensorRows

KEY = "table.weight"


def write_table(path: Path, dtype: torch.dtype = torch.float32, rows: int = 50) -> torch.Tensor:
    """Write a table between other tensors, and return it."""
    table = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    others = {"a": torch.ones(3, dtype=torch.float16), "z": torch.ones(7)}
    save_file(others | {KEY: table}, path, metadata={"format": "pt"})
    return table


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
@pytest.mark.parametrize("shape", [(3,), (2, 8), (1, 1)])
def test_rows_are_those_of_the_tensor(
    dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path
) -> None:
    table = write_table(tmp_path / "file", dtype)
    rows = TensorRows(tmp_path / "file", KEY)
    indices = torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(1))
    assert (len(rows), rows.shape, rows.dtype) == (50, (50, 6), dtype)
    for some in (indices, indices.int(), indices * 0, indices * 0 + 49):
        assert torch.equal(rows.look_up(some), table[some.long()])


@pytest.mark.parametrize("index", [-1, 50])
def test_what_is_no_row_is_refused(index: int, tmp_path: Path) -> None:
    write_table(tmp_path / "file")
    with pytest.raises(IndexError, match=f"{index} is no row of 50"):
        TensorRows(tmp_path / "file", KEY).look_up(torch.tensor([3, index]))


def test_a_file_that_takes_its_place_changes_nothing(tmp_path: Path) -> None:
    table = write_table(tmp_path / "file")
    rows = TensorRows(tmp_path / "file", KEY)
    write_table(tmp_path / "other", rows=20)
    (tmp_path / "other").replace(tmp_path / "file")
    assert torch.equal(rows.look_up(torch.tensor([49])), table[49:])


def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    """A mapping would end the process."""
    write_table(tmp_path / "file")
    rows = TensorRows(tmp_path / "file", KEY)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="row 4 ends early"):
        rows.look_up(torch.tensor([4]))


def test_the_file_is_closed_with_the_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "file")
    open_files = Path("/proc/self/fd")
    if not open_files.exists():
        pytest.skip("Linux tells which files are open")

    def count() -> int:
        return sum(str(tmp_path) in str(file.resolve()) for file in open_files.iterdir())

    rows = TensorRows(tmp_path / "file", KEY)
    assert count() == 1
    del rows
    assert count() == 0
    with pytest.raises(KeyError):
        TensorRows(tmp_path / "file", "no such tensor")
    assert count() == 0


def test_many_threads_read_their_own_rows(tmp_path: Path) -> None:
    table = write_table(tmp_path / "file")
    rows, wrong = TensorRows(tmp_path / "file", KEY), []

    def read(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(50):
            some = torch.randint(0, 50, (4, 4), generator=generator)
            if not torch.equal(rows.look_up(some), table[some]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
