"""The folder that a run on Ray writes to: whose vectors are in it."""

from pathlib import Path

import pytest

from app.bulk.row import BulkError, Origin
from app.scale.parted_output import PartedOutput

_ORIGIN = Origin(
    model="fake/colours", revision=None, space="fake:0", output="pooled", normalized=True, dim=4
)


def test_a_folder_goes_on_with_vectors_of_one_origin(tmp_path: Path) -> None:
    output = PartedOutput(str(tmp_path / "out"))
    output.claim(_ORIGIN)
    with pytest.raises(BulkError, match="--resume"):
        output.require_free(resume=False)
    output.require_free(resume=True)
    output.claim(_ORIGIN)

    assert [path.name for path in (tmp_path / "out" / "_run").iterdir()] == ["origin.json"]


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_an_origin_that_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    output = PartedOutput(str(tmp_path / "out"))
    output.claim(_ORIGIN)
    (tmp_path / "out" / "_run" / "origin.json").write_text(content)

    with pytest.raises(BulkError, match="damaged"):
        output.claim(_ORIGIN)
