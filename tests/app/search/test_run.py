"""A search from the file to the results; what cannot be searched is told before a model loads."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk.row import BulkError
from app.engine.protocol import NO_TEXTS, Embedder, TextEmbedder
from app.engine.service import EmbeddingService
from app.errors import ImageTruncatedError, ItemsFailedError, ServiceError, WorkerDeadError
from app.main import build_service
from app.search.query import ImageQuery, TextQuery, pick_query
from app.search.run import FoundImage, search_index
from app.settings import Settings
from tests.app.bulk.bulk_runs import run_bulk, write_colour, write_colours
from tests.app.fake_embedder import LOSES_DEVICE, SPACE, FakeEmbedder
from tests.app.fake_text_embedder import MAX_TOKENS, RAISES, FakeTextEmbedder, expected_text_vector
from tests.app.images import truncated_jpeg
from tests.app.search.index_files import rewrite

MAX_BYTES = 2**20


def search(
    path: Path,
    query: ImageQuery | TextQuery | Path,
    count: int = 10,
    *,
    load: Callable[[], Embedder] = FakeEmbedder,
    texts: TextEmbedder | None = None,
) -> list[FoundImage]:
    def build(embedder: Embedder) -> EmbeddingService:
        return build_service(embedder, Settings(), texts=texts or NO_TEXTS)

    wanted = ImageQuery(query, MAX_BYTES) if isinstance(query, Path) else query
    return search_index(path, wanted, count, load, build)


def refuse_to_load() -> Embedder:
    raise AssertionError("the model was loaded")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_colours(folder, range(10, 60, 10))
    (folder / "bad.jpg").write_bytes(truncated_jpeg())
    write_colour(folder / "z, green.png", (0, 200, 0))
    return folder


@pytest.fixture(params=[True, False])
def index(photos: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "index.parquet"
    assert run_bulk(photos, path, normalize=request.param) == 1
    return path


def name_of(image: FoundImage) -> str:
    return Path(image.path).name


def test_an_image_finds_itself_and_then_what_is_like_it(photos: Path, index: Path) -> None:
    found = search(index, photos / "z, green.png", 3)

    assert [image.rank for image in found] == [1, 2, 3]
    assert name_of(found[0]) == "z, green.png"
    assert found[0].score == pytest.approx(1, abs=1e-6)
    assert found[0].path == str(photos / "z, green.png")
    assert name_of(found[1]) == "010.png"
    assert found[1].score == pytest.approx(1 / np.hypot(200, 1) / np.hypot(10, 1), abs=1e-6)


def test_more_than_there_are_finds_all_that_have_vectors(photos: Path, index: Path) -> None:
    found = search(index, photos / "050.png", 1000)

    assert [name_of(image) for image in found] == [
        *(f"{red:03}.png" for red in range(50, 0, -10)),
        "z, green.png",
    ]


def test_an_index_of_pooled_and_patch_vectors_is_searched(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.parquet"
    run_bulk(photos, path, kind="both")

    assert name_of(search(path, photos / "030.png", 1)[0]) == "030.png"


def test_an_index_of_an_earlier_version_is_searched(photos: Path, index: Path) -> None:
    expected = search(index, photos / "030.png")

    assert search(rewrite(index), photos / "030.png") == expected


def test_a_text_finds_by_its_vector(index: Path) -> None:
    found = search(index, TextQuery("ab", MAX_BYTES), texts=FakeTextEmbedder())

    wanted = np.array(expected_text_vector("ab"))
    own = np.array([50, 0, 0, 1])
    assert name_of(found[0]) == "050.png"
    cosine = wanted @ own / np.linalg.norm(wanted) / np.linalg.norm(own)
    assert found[0].score == pytest.approx(cosine, abs=1e-6)


def test_a_text_of_too_many_tokens_is_told_of(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search(index, TextQuery("a" * (MAX_TOKENS + 1), MAX_BYTES), texts=FakeTextEmbedder())

    assert "cut short" in capsys.readouterr().out


def test_a_checkpoint_without_texts_says_so(index: Path) -> None:
    with pytest.raises(BulkError, match="search with --image"):
        search(index, TextQuery("a cat", MAX_BYTES))


@pytest.mark.parametrize(
    ("image", "text"), [(None, None), (Path("a.png"), "a cat"), (None, " "), (None, "\udcff")]
)
def test_a_query_is_one_image_or_one_text(image: Path | None, text: str | None) -> None:
    with pytest.raises(BulkError):
        pick_query(image, text, MAX_BYTES, MAX_BYTES)


def test_a_text_that_no_tokenizer_should_see_is_refused() -> None:
    with pytest.raises(BulkError, match="9000 bytes"):
        TextQuery("ä" * 4500, 8192)


def test_a_query_image_that_cannot_be_had_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing.png", ".", "pipe"):
        with pytest.raises(BulkError, match=str(tmp_path)):
            ImageQuery(tmp_path / name, MAX_BYTES)


def test_a_query_that_has_no_vector_says_why(photos: Path, index: Path) -> None:
    with pytest.raises(ImageTruncatedError):
        search(index, photos / "bad.jpg")
    with pytest.raises((ServiceError, ItemsFailedError)):
        search(index, TextQuery(RAISES, MAX_BYTES), texts=FakeTextEmbedder())


def test_a_lost_device_ends_the_search(photos: Path, index: Path) -> None:
    write_colour(photos / "loses.png", (LOSES_DEVICE, 0, 0))

    with pytest.raises(WorkerDeadError):
        search(index, photos / "loses.png")


def write_other_table(path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"], "embedding": [[1.0, 2.0]]}), path)


def write_without_vectors(path: Path) -> None:
    table = pq.read_table(path).drop_columns("embedding")
    pq.write_table(table, path)


def write_other_vectors(path: Path) -> None:
    table = pq.read_table(path)
    kind = pa.list_(pa.float32(), 5)
    other = pa.array([[0.0] * 5] * table.num_rows, kind)
    table = table.set_column(table.schema.get_field_index("embedding"), "embedding", other)
    pq.write_table(table.replace_schema_metadata(pq.read_schema(path).metadata), path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "not written by"),
    "no Parquet": (lambda path: path.write_bytes(b"\x93NUMPY" * 1000), "not written by"),
    "cut short": (lambda path: os.truncate(path, path.stat().st_size // 2), "not written by"),
    "of another program": (write_other_table, "not written by"),
    "without vectors": (write_without_vectors, "not written by"),
    "of other vectors": (write_other_vectors, "not written by"),
    "folder": (make_folder, "not a file"),
    "pipe": (make_pipe, "not a file"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_what_cannot_be_searched_is_told_before_the_model_loads(
    photos: Path, index: Path, how: str
) -> None:
    spoil, reason = SPOILED[how]
    spoil(index)

    with pytest.raises(BulkError, match=reason) as told:
        search(index, photos / "010.png", load=refuse_to_load)

    assert str(index) in str(told.value)
    assert "\n" not in str(told.value)


def test_patch_vectors_alone_are_refused(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "patches.parquet"
    run_bulk(photos, path, kind="patches")

    with pytest.raises(BulkError, match="patch vectors only"):
        search(path, photos / "010.png", load=refuse_to_load)


@pytest.mark.parametrize(
    ("before", "after"), [(SPACE, SPACE.replace("0", "9")), ("fake/colours", "other/model")]
)
def test_an_index_of_another_space_is_refused_and_a_name_alone_is_none(
    photos: Path, index: Path, before: str, after: str
) -> None:
    table = pq.read_table(index)
    metadata = {
        name: text.replace(before.encode(), after.encode())
        for name, text in table.schema.metadata.items()
    }
    pq.write_table(table.replace_schema_metadata(metadata), index)

    if before != SPACE:
        assert len(search(index, photos / "010.png")) == 6
        return
    with pytest.raises(BulkError, match=f"fake/colours, space {after}"):
        search(index, photos / "010.png")


def test_an_index_that_is_replaced_meanwhile_stays_the_one_that_was_opened(
    photos: Path, index: Path
) -> None:
    expected = search(index, photos / "010.png")
    other = index.with_name("other.parquet")
    run_bulk(photos / "050.png", other)

    def load_late() -> Embedder:
        other.replace(index)
        return FakeEmbedder()

    assert search(index, photos / "010.png", load=load_late) == expected
