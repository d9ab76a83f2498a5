"""What becomes a row for good, and what ends the run, so that another has the image once more."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from app.bulk.row import BulkError, Origin
from app.bulk.source import VectorOptions
from app.scale.stages import Described, ImageDecoder, ImageEmbedder
from app.settings import Settings
from tests.app.bulk.bulk_runs import write_colour, write_colours
from tests.app.fake_embedder import GIVES_NAN, RAISES, SPACE, FakeEmbedder
from tests.app.images import NO_IMAGE

SETTINGS = Settings(log_level="error")


@contextmanager
def started_decoder() -> Iterator[ImageDecoder]:
    decoder = ImageDecoder(SETTINGS, FakeEmbedder())
    try:
        yield decoder
    finally:
        decoder._preparer.close()


def start_embedder(monkeypatch: pytest.MonkeyPatch, model: FakeEmbedder) -> ImageEmbedder:
    monkeypatch.setattr("app.scale.stages.load_model", lambda _: model)
    monkeypatch.setattr("app.scale.stages.configure_allocators", lambda: None)
    origin = Origin("fake/colours", None, SPACE, "pooled", normalized=True, dim=4)
    return ImageEmbedder(SETTINGS, Described(origin, model), VectorOptions())


def table_of(files: list[Path]) -> pa.Table:
    return pa.table({"path": list(map(str, files)), "file": list(map(os.fsencode, files))})


def test_an_image_that_is_at_fault_is_a_row_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_colour(tmp_path / f"{red}.png", (red, 0, 0)) for red in (1, GIVES_NAN, RAISES)]
    (tmp_path / "broken.png").write_bytes(NO_IMAGE)
    files += [tmp_path / "broken.png", tmp_path / "none.png"]

    with started_decoder() as decoder:
        rows = start_embedder(monkeypatch, FakeEmbedder())(decoder(table_of(files)))

    assert rows["error"].to_pylist() == [
        *(None, "non_finite", "internal"),
        *("unsupported_image_format", "file_unreadable"),
    ]


def test_where_no_image_can_be_decoded_there_is_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.intake.decode_child._START", "raise SystemExit(3)")

    with started_decoder() as decoder, pytest.raises(BulkError, match="no process for decoding"):
        decoder(table_of(write_colours(tmp_path, range(2))))
