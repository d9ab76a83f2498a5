"""The stages that Ray runs, as they are without it."""

from pathlib import Path

import pyarrow as pa
import pytest

from app.bulk.row import BulkError
from app.intake import decode_child
from app.scale.stages import ImageDecoder
from app.settings import Settings
from tests.app.bulk.bulk_runs import write_colours
from tests.app.fake_embedder import FakeEmbedder


def files_of(folder: Path) -> pa.Table:
    paths = [str(path) for path in write_colours(folder, range(2))]
    return pa.table({"path": paths, "file": [path.encode() for path in paths]})


def test_where_no_decoder_starts_no_image_is_said_to_have_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_child, "_START", "raise SystemExit(3)")
    decoder = ImageDecoder(Settings(), FakeEmbedder().resizer)

    with pytest.raises(BulkError, match="no process for decoding"):
        decoder(files_of(tmp_path))

    monkeypatch.undo()
    assert decoder(files_of(tmp_path))["error"].to_pylist() == [None, None]
    decoder._preparer.close()
