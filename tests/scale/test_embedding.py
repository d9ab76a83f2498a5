"""The bulk command on Ray: the rows of the command without it, each once, whatever is killed."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.app.images import NO_IMAGE, encode, scene
from tests.reference import ReferenceCheckpoint
from tests.scale.bulk_runs import embed_here, embed_on_ray, read_rows, started_on_ray

pytestmark = pytest.mark.timeout(1200)  # Ray takes its time, on a busy machine much of it

IMAGES = 160


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images and a file that is none."""
    folder = tmp_path_factory.mktemp("few")
    for seed in range(20):
        (folder / f"{seed:03}.png").write_bytes(encode(scene(seed)))
    (folder / "broken.png").write_bytes(NO_IMAGE)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that take some time to decode: one, by many names."""
    folder = tmp_path_factory.mktemp("many")
    first = folder / "000.jpg"
    first.write_bytes(encode(scene(1, (3000, 2000)), "JPEG"))
    for number in range(1, IMAGES):
        os.link(first, folder / f"{number:03}.jpg")
    return folder


def test_the_output_is_that_of_the_command_without_ray(
    tmp_path: Path, few: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    assert embed_here(tiny_checkpoint.folder, tmp_path / "here.parquet", few) == 1

    code, said = embed_on_ray(tiny_checkpoint.folder, tmp_path / "there", str(few))

    assert code == 1, said
    assert '"failed": 1' in said
    schemas = [pq.read_schema(part) for part in (tmp_path / "there").glob("*.parquet")]
    assert all(
        schema.equals(pq.read_schema(tmp_path / "here.parquet"), check_metadata=True)
        for schema in schemas
    )
    here, there = read_rows(tmp_path / "here.parquet"), read_rows(tmp_path / "there")
    assert there.keys() == here.keys()
    assert there[str(few / "broken.png")]["error"] == "unsupported_image_format"
    for name, row in here.items():
        theirs = row.pop("embedding"), there[name].pop("embedding")
        assert there[name] == row
        if row["error"] is None:
            np.testing.assert_allclose(*theirs, rtol=1e-4, atol=1e-6)


def test_a_run_that_was_killed_goes_on_with_what_is_missing(
    tmp_path: Path, many: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    output = tmp_path / "out"
    with started_on_ray(tiny_checkpoint.folder, output, str(many)) as run:
        run.wait_for_parts(2)
        run.kill()
    assert 0 < len(list(output.glob("*.parquet"))) < IMAGES // 8
    assert embed_on_ray(tiny_checkpoint.folder, output, str(many))[0] == 2  # not without being told

    code, said = embed_on_ray(tiny_checkpoint.folder, output, str(many), "--resume")

    assert code == 0, said
    assert read_rows(output).keys() == {str(path) for path in many.iterdir()}


def test_a_worker_that_is_killed_loses_no_image(
    tmp_path: Path, many: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    with started_on_ray(tiny_checkpoint.folder, tmp_path / "out", str(many)) as run:
        run.wait_for_parts(2)
        assert run.kill_workers() == 1
        code, said = run.finish()

    assert code == 0, said
    assert read_rows(tmp_path / "out").keys() == {str(path) for path in many.iterdir()}


def test_a_manifest_of_uris_is_embedded_until_too_many_fail(
    tmp_path: Path, few: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    manifest = tmp_path / "manifest.txt"
    lines = [f"file://{path}" for path in sorted(few.iterdir())]
    manifest.write_text("\n".join([*lines, lines[0], "file:///not/there.png"]))

    code, said = embed_on_ray(
        tiny_checkpoint.folder,
        tmp_path / "out",
        *("--manifest", str(manifest), "--max-error-rate", "0.05"),
    )

    assert code == 1
    assert "too many errors" in said
    errors = {name: row["error"] for name, row in read_rows(tmp_path / "out").items()}
    assert errors.keys() == {*lines, "file:///not/there.png"}
    assert errors["file:///not/there.png"] == "file_unreadable"
    assert sum(error is not None for error in errors.values()) == 2

    code, said = embed_on_ray(
        tiny_checkpoint.folder, tmp_path / "out", "--manifest", str(manifest), "--resume"
    )

    assert code == 1
    assert "were not tried again" in said


def test_workers_that_have_no_room_are_refused(
    tmp_path: Path, few: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    code, said = embed_on_ray(
        tiny_checkpoint.folder, tmp_path / "out", str(few), "--workers", "100"
    )

    assert code == 3
    assert "there is no room for 100" in said
