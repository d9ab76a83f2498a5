"""Rows ranked as numpy ranks them in float64, whatever the file's layout, and within bounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.bulk import parquet
from app.bulk.row import BulkError
from app.engine.protocol import Float32Array
from app.search import index as index_module
from app.search import plain_vectors
from app.search.index import opened_index
from app.search.ranking import Hit, rank_rows
from tests.app.search.index_files import DIM, OLD_LAYOUT, draw_vectors, rewrite, write_index

ROWS = 700
LAYOUTS: dict[str, dict[str, Any] | None] = {
    "ours": None,
    "old": OLD_LAYOUT,
    "dictionary": {},
    "many pages": {"compression": "none", "use_dictionary": False, "data_page_size": 1},
    "many pages, the last a number or so": {
        "compression": "none",
        "use_dictionary": False,
        "data_page_size": 200 * DIM * 4,
        "write_batch_size": 199,
    },
    "pages of version 2": {"compression": "none", "data_page_version": "2.0"},
    "zstd": {"compression": "zstd", "use_dictionary": False},
    "split": {
        "compression": "none",
        "use_dictionary": False,
        "column_encoding": {"embedding.list.element": "BYTE_STREAM_SPLIT"},
    },
    "no statistics": {"compression": "none", "use_dictionary": False, "write_statistics": False},
    "checksums": {
        "compression": "none",
        "use_dictionary": False,
        "write_page_checksum": True,
        "data_page_size": 2**26,
    },
}


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 300)
    monkeypatch.setattr(plain_vectors, "_BLOCK_BYTES", 4 * DIM * 64)
    monkeypatch.setattr(index_module, "_DECODED_ROWS", 50)


def fails(number: int) -> bool:
    return number % 7 == 3


def rank(path: Path, query: Float32Array, count: int) -> list[Hit]:
    with opened_index(path) as index:
        return rank_rows(index, query, count, unit=index.origin.normalized)


def rank_in_numpy(vectors: Float32Array, query: Float32Array, count: int) -> list[Hit]:
    """Rank all good rows in float64; copies of a vector have one score, and stay in order."""
    exact, wanted = vectors.astype(np.float64), query.astype(np.float64)
    unique, places = np.unique(exact, axis=0, return_inverse=True)
    lengths = np.linalg.norm(unique, axis=1) * np.linalg.norm(wanted)
    scores = (unique @ wanted / lengths)[places]
    good = [row for row in range(len(vectors)) if not fails(row)]
    best = sorted(good, key=lambda row: -scores[row])[:count]
    return [Hit(row, float(scores[row])) for row in best]


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_ranking_is_that_of_numpy(tmp_path: Path, layout: str, normalized: bool) -> None:
    vectors = draw_vectors(ROWS, normalized=normalized)
    path = write_index(tmp_path / "i.parquet", vectors, fails, normalized=normalized)
    if (options := LAYOUTS[layout]) is not None:
        rewrite(path, **options)

    for seed, count in ((0, 1), (1, 10), (2, 120), (3, 1000)):
        query = draw_vectors(9, normalized=False)[seed]
        hits, expected = rank(path, query, count), rank_in_numpy(vectors, query, count)

        assert [hit.row for hit in hits] == [hit.row for hit in expected]
        scores = [hit.score for hit in hits]
        assert scores == pytest.approx([hit.score for hit in expected], abs=1e-12)
    assert len(hits) == sum(not fails(row) for row in range(ROWS))


def test_copies_are_equally_near_and_in_order_of_rows(tmp_path: Path) -> None:
    vectors = np.repeat(draw_vectors(8)[:1], ROWS, axis=0)
    path = write_index(tmp_path / "i.parquet", vectors)

    hits = rank(path, vectors[0], 400)

    assert [hit.row for hit in hits] == [*range(400)]
    assert len({hit.score for hit in hits}) == 1
    assert hits[0].score == pytest.approx(1, abs=1e-12)


def test_rows_that_differ_less_than_float32_tells_are_in_order(tmp_path: Path) -> None:
    query = np.zeros(DIM, np.float32)
    query[0] = 1
    vectors = np.zeros((300, DIM), np.float32)
    vectors[:, 0] = 1
    vectors[:, 1] = np.linspace(2e-4, 0, 300)  # cosines from 1 - 2e-8 to 1
    path = write_index(tmp_path / "i.parquet", vectors, normalized=False)

    assert [hit.row for hit in rank(path, query, 20)] == [*range(299, 279, -1)]


def test_vectors_without_a_direction_are_left_out(tmp_path: Path) -> None:
    vectors = draw_vectors(10, normalized=False)
    vectors[2], vectors[3, 5], vectors[4, 5] = 0, np.nan, np.inf
    path = write_index(tmp_path / "i.parquet", vectors, normalized=False)

    assert sorted(hit.row for hit in rank(path, vectors[0], 10)) == [0, 1, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("rows", [0, 3])
def test_where_all_images_failed_nothing_is_found(tmp_path: Path, rows: int) -> None:
    path = write_index(tmp_path / "i.parquet", draw_vectors(8)[:rows], lambda _: True)

    assert rank(path, draw_vectors(8)[0], 10) == []


def test_vectors_of_our_files_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_index(tmp_path / "i.parquet", draw_vectors(ROWS), fails)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", refuse)

    assert len(rank(path, draw_vectors(ROWS)[0], 10)) == 10
    with pytest.raises(AssertionError, match="decoded"):
        rank(rewrite(path), draw_vectors(ROWS)[0], 10)


@pytest.mark.parametrize("options", [None, OLD_LAYOUT])
def test_blocks_are_of_bounded_size_however_large_the_file_is(
    tmp_path: Path, options: dict[str, Any] | None
) -> None:
    path = write_index(tmp_path / "i.parquet", draw_vectors(ROWS))
    if options is not None:
        rewrite(path, **options)

    with opened_index(path) as index:
        blocks = [len(rows) for group in index.groups for rows, _ in index.read_blocks(group)]

    assert sum(blocks) == ROWS
    assert max(blocks) == (64 if options is None else 50)


@pytest.mark.parametrize("layout", ["ours", "old"])
def test_damaged_pages_are_told_or_change_results_alone(tmp_path: Path, layout: str) -> None:
    path = write_index(tmp_path / "i.parquet", draw_vectors(30), fails)
    if (options := LAYOUTS[layout]) is not None:
        rewrite(path, **options)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    start = pq.read_metadata(path).row_group(0).column(4).data_page_offset
    told = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for place in random.integers(start, start + 60, 2):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            with opened_index(path) as index:
                hits = rank_rows(index, draw_vectors(30)[0], 5, unit=True)
                index.read_paths([hit.row for hit in hits])
        except BulkError:
            told += 1
    assert 0 < told < 400
