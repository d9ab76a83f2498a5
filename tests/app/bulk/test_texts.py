"""Whole runs over texts with the fakes: rows, failures, resuming, refusals."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from app.bulk.pipeline import texts_in_flight, texts_per_piece
from app.bulk.row import BulkError
from app.bulk.source import VectorOptions
from app.engine.protocol import NoTexts, TextInfo
from app.errors import WorkerDeadError
from tests.app.bulk.bulk_runs import read_lines, read_rows, run_bulk, run_texts, write_colours
from tests.app.fake_embedder import SPACE
from tests.app.fake_text_embedder import (
    GIVES_NAN,
    MAX_TOKENS,
    RAISES,
    TEXT_SPACE,
    FakeTextEmbedder,
    expected_text_vector,
)

SUFFIXES = [".parquet", ".npy", ".jsonl"]
WORDS = ["ant", "bee", "a longer text", "", "cat"]


@dataclass
class OtherTexts(FakeTextEmbedder):
    """The fake, of another space of texts."""

    @property
    def info(self) -> TextInfo:
        return replace(super().info, text_space="fake:text:ffffffffffff")


@dataclass
class DiesOnD(FakeTextEmbedder):
    """The fake, which ends all work at a text that begins with D."""

    def tokenize(self, texts):  # type: ignore[no-untyped-def]
        if any(text.startswith("D") for text in texts):
            raise WorkerDeadError("the inference thread is gone")
        return super().tokenize(texts)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return write(tmp_path / "words.txt", WORDS)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def computed(texts: FakeTextEmbedder) -> list[str]:
    return sorted(text for batch in texts.batches for text in batch)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_has_all_texts_in_order_with_their_vectors(
    words: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"

    assert run_texts(words, output, FakeTextEmbedder()) == 0

    columns = ("id", "text", "tokens", "truncated", "embedding", "error")
    expected = [
        (str(number), text, len(text), len(text) > MAX_TOKENS, expected_text_vector(text), None)
        for number, text in enumerate(WORDS, 1)
        if text
    ]
    rows = read_rows(output)
    assert [tuple(row[column] for column in columns) for row in rows] == expected
    assert not {"path", "sha256", "width", "height", "grid", "patches"} & {*rows[0]}


def test_where_the_vectors_come_from_is_told(words: Path, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        run_texts(words, tmp_path / f"out{suffix}", FakeTextEmbedder())

    table = pq.read_schema(tmp_path / "out.parquet").metadata
    lines = [
        read_lines(tmp_path / "out.jsonl")[0],
        read_lines(tmp_path / "out.npy.rows.jsonl")[0],
        {name.decode(): value.decode() for name, value in table.items()},
    ]
    for line in lines:
        told = (line["kind"], line["space"], line["text_space"], line["output"])
        assert told == ("text", SPACE, TEXT_SPACE, "pooled")


def test_vectors_are_normalised_as_over_http(words: Path, tmp_path: Path) -> None:
    run_texts(words, tmp_path / "out.npy", FakeTextEmbedder(), options=VectorOptions())

    vectors = np.load(tmp_path / "out.npy")
    raw = np.array([expected_text_vector(text) for text in WORDS if text])
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, unit, rtol=0, atol=1e-7)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bad_text_fails_alone_with_its_code(tmp_path: Path, suffix: str) -> None:
    lines = [f'"{word}"' for word in ("ant", f"{RAISES}a", "bee", f"{GIVES_NAN}b", "cat")]
    lines += ['{"id": "long", "text": "' + "x" * 1001 + '"}', '{"id": "none"}', '"dog"']
    output = tmp_path / f"out{suffix}"

    assert run_texts(write(tmp_path / "a.jsonl", lines), output, FakeTextEmbedder()) == 1

    errors = {
        "2": "internal",
        "4": "non_finite",
        "long": "text_too_large",
        "none": "invalid_parameter",
    }
    manifest = read_lines(output.with_name(output.name + ".errors.jsonl"))
    assert {line["id"]: line["error"] for line in manifest} == errors
    rows = read_rows(output)
    good = {row["id"]: row["embedding"] for row in rows if row["error"] is None}
    assert good == {
        id_: expected_text_vector(text)
        for id_, text in (("1", "ant"), ("3", "bee"), ("5", "cat"), ("8", "dog"))
    }
    assert {row["id"]: row["error"] for row in rows if row["error"]} == (
        {} if suffix == ".npy" else errors
    )


def test_batches_are_full_and_no_text_is_refused_for_the_others(tmp_path: Path) -> None:
    texts = FakeTextEmbedder(max_batch_size=48)
    assert (texts_per_piece(texts.info), texts_in_flight(texts.info)) == (96, 384)
    words = [f"{number:04}" for number in range(960)]

    assert run_texts(write(tmp_path / "a.txt", words), tmp_path / "out.npy", texts) == 0

    assert {len(batch) for batch in texts.batches} == {48}
    assert computed(texts) == words


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_resuming_goes_by_id_and_computes_what_is_new_changed_or_failed(
    tmp_path: Path, suffix: str
) -> None:
    output, path = tmp_path / f"out{suffix}", tmp_path / "a.csv"
    write(path, ["id,text", "a,ant", f"b,{RAISES}", "c,cat", "d,dog"])
    assert run_texts(path, output, FakeTextEmbedder()) == 1
    write(path, ["id,text", "e,eel", "d,dog", "c,cow", "b,bee"])
    texts = FakeTextEmbedder()

    assert run_texts(path, output, texts, resume=True) == 0

    assert computed(texts) == ["bee", "cow", "eel"]
    rows = [(row["id"], row["text"], row["embedding"]) for row in read_rows(output)]
    pairs = [("e", "eel"), ("d", "dog"), ("c", "cow"), ("b", "bee"), ("a", "ant")]
    assert rows == [(id_, text, expected_text_vector(text)) for id_, text in pairs]
    again = FakeTextEmbedder()
    assert run_texts(path, output, again, resume=True) == 0
    assert again.batches == []


def test_a_lost_engine_ends_the_run_with_70_and_resuming_goes_on(tmp_path: Path) -> None:
    words = [f"{number:03}" for number in range(300)]
    output, path = tmp_path / "out.parquet", write(tmp_path / "a.txt", [*words, "D"])

    assert run_texts(path, output, DiesOnD()) == 70
    texts = FakeTextEmbedder()
    assert run_texts(path, output, texts, resume=True) == 0

    assert [row["text"] for row in read_rows(output)] == [*words, "D"]


def test_an_output_of_images_or_of_other_texts_is_not_added_to(words: Path, tmp_path: Path) -> None:
    images, texts = tmp_path / "images.jsonl", tmp_path / "texts.jsonl"
    photos = write_colours(tmp_path / "photos", range(1))
    run_bulk(photos, images)
    run_texts(words, texts, FakeTextEmbedder())

    with pytest.raises(BulkError, match="has vectors of images, these would be of texts"):
        run_texts(words, images, FakeTextEmbedder(), resume=True)
    with pytest.raises(BulkError, match="has vectors of texts, these would be of images"):
        run_bulk(photos, texts, resume=True)
    with pytest.raises(BulkError, match=f"has vectors of text space {TEXT_SPACE}"):
        run_texts(words, texts, OtherTexts(), resume=True)


def test_what_cannot_be_embedded_is_refused(words: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    same = write(tmp_path / "same.csv", ["id,text", "a,ant", "b,bee", "a,cat"])

    with pytest.raises(BulkError, match="lines 2 and 4 have the same id, 'a'"):
        run_texts(same, output, FakeTextEmbedder())
    with pytest.raises(BulkError, match="there is no text in"):
        run_texts(write(tmp_path / "none.txt", ["", " "]), output, FakeTextEmbedder())
    with pytest.raises(BulkError, match="no texts here: because"):
        run_texts(words, output, NoTexts("because"))
    with pytest.raises(BulkError, match="is of the output itself"):
        run_texts(tmp_path / "out.jsonl", tmp_path / "out.jsonl", FakeTextEmbedder(), resume=True)

    assert {path.suffix for path in tmp_path.iterdir()} == {".txt", ".csv"}


def test_the_last_line_tells_of_texts(words: Path, tmp_path: Path) -> None:
    with capture_logs() as lines:
        run_texts(words, tmp_path / "out.npy", FakeTextEmbedder())

    assert (lines[-1]["event"], lines[-1]["texts"], lines[-1]["failed"]) == ("embedded", 4, 0)
    assert lines[-1]["texts_per_s"] > 0
    assert not {"images", "left_out"} & {*lines[-1]}
