"""Where images lie: found as the command without Ray finds them, listed below URIs, or read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from app.bulk.row import BulkError
from app.errors import FileUnreadableError
from app.scale.manifest import list_images, read_manifest, source_of, write_manifest
from app.scale.stored_file import StoredFile
from tests.app.bulk.bulk_runs import write_colours

_FORMATS = frozenset({"png"})


def test_a_folder_and_a_uri_have_the_same_images(tmp_path: Path) -> None:
    images = write_colours(tmp_path / "images", range(3))
    (tmp_path / "images" / "notes.txt").write_text("no image")

    local = dict(list_images([str(tmp_path / "images")], _FORMATS, None).files)
    uris = dict(list_images([f"file://{tmp_path}/images"], _FORMATS, None).files)

    assert list(local) == [str(path) for path in images]
    assert list(uris) == [f"file://{path}" for path in images]


def test_the_output_is_not_taken(tmp_path: Path) -> None:
    write_colours(tmp_path / "out", range(2))

    assert dict(list_images([str(tmp_path)], _FORMATS, tmp_path / "out").files) == {}


def test_a_uri_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    with pytest.raises(BulkError, match="cannot be listed"):
        list(list_images([f"file://{tmp_path}/none"], _FORMATS, None).files)


@pytest.mark.parametrize("name", ["sp%20ace", "a?region=b", "a#b"])
def test_what_is_found_below_a_uri_can_be_read(tmp_path: Path, name: str) -> None:
    (image,) = write_colours(tmp_path / name, range(1))

    ((_, found),) = list_images([f"file://{tmp_path}/{name}/"], _FORMATS, None).files

    assert source_of(found.encode(), 10_000)() == image.read_bytes()


@pytest.mark.parametrize("end", ["/sp%20ace", "/images?region=a"])
def test_a_uri_with_escapes_or_options_is_refused(tmp_path: Path, end: str) -> None:
    write_colours(tmp_path / "sp ace", range(1))
    write_colours(tmp_path / "images", range(1))

    with pytest.raises(BulkError, match="no escapes, no options"):
        list(list_images([f"file://{tmp_path}{end}"], _FORMATS, None).files)


def test_a_password_is_in_no_error() -> None:
    with pytest.raises(BulkError, match="has a password") as caught:
        list(list_images(["s3://key:secret@bucket/a"], _FORMATS, None).files)

    assert "secret" not in str(caught.value)


def test_a_password_does_not_come_into_the_output(tmp_path: Path) -> None:
    files = [("s3://key:secret@bucket/a.png",) * 2]

    with pytest.raises(BulkError, match="has a password") as caught:
        write_manifest(files, str(tmp_path), fs.LocalFileSystem())

    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a:b@c.png", "abfs://box@account.net/a", "hdfs://me@host:1/a", "/a:b@c.png"]
)
def test_what_is_no_password_is_left_alone(tmp_path: Path, uri: str) -> None:
    assert write_manifest([(uri, uri)], str(tmp_path), fs.LocalFileSystem()) == 1


def test_manifests_are_lines_or_a_column(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a.png\n\n s3://bucket/b.png \n")
    pq.write_table(pa.table({"path": ["a.png", "s3://bucket/b.png"]}), tmp_path / "table.parquet")

    expected = [(name, name) for name in ("a.png", "s3://bucket/b.png")]
    assert list(read_manifest(tmp_path / "lines.txt")) == expected
    assert list(read_manifest(tmp_path / "table.parquet")) == expected


@pytest.mark.parametrize("name", ["none.txt", "none.parquet", "text.parquet"])
def test_what_is_no_manifest_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.parquet").write_text("these bytes are no Parquet")

    with pytest.raises(BulkError, match="cannot be read as a manifest"):
        list(read_manifest(tmp_path / name))


def test_a_manifest_is_written_in_parts_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.scale.manifest._ROWS_OF_A_FILE", 2)
    files = [(f"{number}.png", f"/{number}.png") for number in (*range(5), 0)]

    total = write_manifest(files, str(tmp_path), fs.LocalFileSystem())

    assert total == 5
    parts = sorted(tmp_path.iterdir())
    assert [pq.read_metadata(part).num_rows for part in parts] == [2, 2, 1]
    assert pq.read_table(tmp_path)["path"].to_pylist() == [name for name, _ in files[:5]]
    with pytest.raises(BulkError, match="no image"):
        write_manifest([], str(tmp_path), fs.LocalFileSystem())


def test_an_object_is_read_to_its_limit(tmp_path: Path) -> None:
    (path,) = write_colours(tmp_path / "a b%20#", range(1))
    size = path.stat().st_size
    whole = source_of(f"file://{path}".encode(), size)
    too_large = StoredFile(f"file://{path}", size - 1)

    assert whole() == path.read_bytes()
    assert whole.sha256
    assert len(too_large()) == size
    assert too_large.sha256 is None


def test_an_object_that_is_not_there_says_so_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadableError) as caught:
        StoredFile(f"file://{tmp_path}/none", 100)()

    assert str(tmp_path) not in caught.value.message
