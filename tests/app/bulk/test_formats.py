"""The three formats: what is written is read again, by us and by others, however much it is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk import jsonl, npy, parquet
from app.bulk.row import BulkError, Origin, OutputKind, Row
from tests.app.bulk.bulk_runs import read_lines

ORIGIN = Origin("google/m", None, "m:0123456789ab", "pooled", normalized=True, dim=3)
GRIDS = ((1, 2), (2, 2), (1, 1))
FORMATS = {".parquet": parquet, ".jsonl": jsonl, ".npy": npy}


def rows(kind: OutputKind, *, even: bool = False) -> Iterator[Row]:
    """Two good rows, a failed one, a good one; patches of unequal number unless `even`."""
    random = np.random.default_rng(0)
    for number, grid in enumerate(GRIDS):
        rows, columns = (1, 2) if even else grid
        yield Row(
            f"a/ä{number}.png",
            "0" * 64,
            30 + number,
            20,
            grid=None if kind == "pooled" else (rows, columns),
            embedding=None if kind == "patches" else random.random(3, np.float32),
            patches=None if kind == "pooled" else random.random((rows * columns, 3), np.float32),
        )
        if number == 1:
            yield Row("a/bad.png", error="image_truncated", message="it ends early")


@pytest.mark.parametrize("kind", ["pooled", "patches", "both"])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_rows_are_read_as_they_were_written(tmp_path: Path, suffix: str, kind: OutputKind) -> None:
    path = tmp_path / f"out{suffix}"
    origin = replace(ORIGIN, output=kind)

    FORMATS[suffix].write(path, origin, rows(kind))
    read_origin, read = FORMATS[suffix].read(path)

    assert read_origin == origin
    assert repr(list(read)) == repr([replace(row, message=None) for row in rows(kind)])


@pytest.mark.parametrize("revision", [None, "abc"])
@pytest.mark.parametrize("kind", ["pooled", "patches"])
def test_an_array_has_the_good_rows_and_their_names_beside_it(
    tmp_path: Path, kind: OutputKind, revision: str | None
) -> None:
    path = tmp_path / "out.npy"
    origin = replace(ORIGIN, output=kind, revision=revision)
    good = [row for row in rows(kind, even=True) if row.error is None]

    npy.write(path, origin, rows(kind, even=True))
    read_origin, read = npy.read(path) or pytest.fail("there is nothing")
    array = np.load(path, allow_pickle=False)

    assert read_origin == origin
    assert repr(list(read)) == repr(good)
    assert array.dtype == np.float32
    assert array.shape == ((3, 3) if kind == "pooled" else (3, 2, 3))
    expected = [row.embedding if kind == "pooled" else row.patches for row in good]
    assert np.array_equal(array, np.stack(expected))  # type: ignore[arg-type]
    lines = read_lines(tmp_path / "out.npy.rows.jsonl")
    assert [line["path"] for line in lines] == [row.path for row in good]
    assert {line["space"] for line in lines} == {ORIGIN.space}


@pytest.mark.parametrize(("kind", "shape"), [("pooled", (0, 3)), ("patches", (0, 0, 3))])
def test_an_array_of_nothing_is_an_array(
    tmp_path: Path, kind: OutputKind, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "out.npy"

    npy.write(path, replace(ORIGIN, output=kind), [Row("a", error="internal")])

    assert np.load(path).shape == shape
    assert npy.read(path) is None


def test_names_that_do_not_belong_to_an_array_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    npy.write(path, ORIGIN, rows("pooled"))
    np.save(path, np.zeros((2, 3), np.float32))

    with pytest.raises(BulkError):
        npy.read(path)


def test_parquet_has_the_columns_types_and_metadata_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"

    parquet.write(path, replace(ORIGIN, revision="abc"), rows("pooled"))
    schema = pq.read_schema(path)

    assert {field.name: field.type for field in schema} == {
        "path": pa.string(),
        "sha256": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "embedding": pa.list_(pa.float32(), 3),
        "error": pa.string(),
    }
    metadata = pq.read_metadata(path).metadata
    assert metadata[b"model"] == b"google/m"
    assert metadata[b"revision"] == b"abc"
    assert metadata[b"space"] == b"m:0123456789ab"


def test_parquet_of_patches_is_ragged_with_a_grid_for_each_image(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"

    parquet.write(path, replace(ORIGIN, output="patches"), rows("patches"))
    table = pq.read_table(path)

    assert table.schema.names == ["path", "sha256", "width", "height", "grid", "patches", "error"]
    assert table["patches"].type == pa.list_(pa.list_(pa.float32(), 3))
    assert table["grid"].to_pylist() == [[1, 2], [2, 2], None, [1, 1]]
    lengths = [patches and len(patches) for patches in table["patches"].to_pylist()]
    assert lengths == [2, 4, None, 1]


@pytest.mark.parametrize(
    ("kind", "limits"),
    [("pooled", {"_GROUP_ROWS": 3}), ("both", {"_GROUP_BYTES": 60})],
)
def test_parquet_comes_in_groups_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: OutputKind, limits: dict[str, int]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(parquet, name, value)
    path = tmp_path / "out.parquet"
    many: list[Row] = [row for _ in range(5) for row in rows(kind)]

    parquet.write(path, replace(ORIGIN, output=kind), many)

    assert pq.read_metadata(path).num_row_groups >= 5
    assert repr(list(parquet.read(path)[1])) == repr([replace(row, message=None) for row in many])


def test_numbers_of_json_lines_are_the_same_float32_numbers(tmp_path: Path) -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 3000, dtype=np.uint32)
    numbers = bits.view(np.float32)
    numbers = numbers[np.isfinite(numbers)][:2400].reshape(-1, 3)
    path = tmp_path / "out.jsonl"

    jsonl.write(path, ORIGIN, [Row("a", embedding=vector) for vector in numbers])
    read: list[Any] = [row.embedding for row in jsonl.read(path)[1]]

    assert np.array_equal(np.stack(read).view(np.uint32), numbers.view(np.uint32))


def test_long_texts_make_small_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 1000)
    path = tmp_path / "out.parquet"
    origin = replace(ORIGIN, kind="text", text_space="m:text:0")
    vector = np.ones(3, np.float32)

    parquet.write(
        path, origin, (Row(str(number), text="x" * 500, embedding=vector) for number in range(8))
    )

    assert pq.read_metadata(path).num_row_groups == 4
    assert parquet.read(path)[0] == origin
