"""`python -m app embed --texts` as a process: the vectors are those of POST /embed/text."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.settings import Settings
from tests.app.bulk.bulk_runs import read_lines, read_rows
from tests.app.images import encode, scene
from tests.app.service_server import run_service
from tests.app.test_embed_command import last_event, run
from tests.app.test_search_command import run as search
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

CAPTIONS = ["ant", "a red bicycle", "", "Ein Bär!", "ant " * 40, "ant"]
_TOKENS = 16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with both towers and a tokenizer."""
    folder = tmp_path_factory.mktemp("both")
    write_full_checkpoint(folder, vocab_size=400)
    write_siglip_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captions") / "captions.jsonl"
    values = [{"id": f"c{number}", "text": text} for number, text in enumerate(CAPTIONS)]
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.fixture(scope="module")
def embedded(
    checkpoint: Path, captions: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The output, and what the command printed."""
    output = tmp_path_factory.mktemp("out") / "captions.parquet"
    code, printed, errors = run(checkpoint, "--texts", captions, "-o", output, "--quiet")
    assert (code, errors) == (1, "")
    return output, printed


def test_captions_get_the_vectors_that_post_embed_text_gives(
    checkpoint: Path, embedded: tuple[Path, str]
) -> None:
    output, printed = embedded
    rows = read_rows(output)
    good = [row for row in rows if row["error"] is None]
    settings = Settings(model=str(checkpoint), device="cpu", dtype="float32")
    with run_service(settings) as service:
        service.wait_for_status("ok")
        texts = [text for text in CAPTIONS if text]
        answer = service.client.post("/embed/text", json={"texts": texts}).json()

    assert [(row["id"], row["text"]) for row in good] == [
        (f"c{number}", text) for number, text in enumerate(CAPTIONS) if text
    ]
    for row, item in zip(good, answer["data"], strict=True):
        assert np.array_equal(np.float32(row["embedding"]), np.float32(item["embedding"]))
        assert row["tokens"] == item["tokens"]
        assert row["truncated"] == ("text_truncated" in item["warnings"])
    assert [row["truncated"] for row in good] == [row["tokens"] > _TOKENS for row in good]
    metadata = pq.read_metadata(output).metadata
    assert metadata[b"space"].decode() == answer["space"]
    assert metadata[b"text_space"].decode() == answer["text_space"]
    (error,) = read_lines(output.with_name(output.name + ".errors.jsonl"))
    assert (error["id"], error["error"]) == ("c2", "no_texts")
    told = last_event(printed)
    assert (told["event"], told["texts"], told["failed"]) == ("embedded", 6, 1)


def test_captions_are_found_by_text_and_by_image(
    checkpoint: Path,
    embedded: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("MODEL", str(checkpoint)), ("DEVICE", "cpu"), ("DTYPE", "float32")):
        monkeypatch.setenv(f"SIGLIP_{name}", value)
    image = tmp_path / "a.png"
    image.write_bytes(encode(scene(0, (40, 30))))

    by_text = search(embedded[0], "--text", "a red bicycle", "-k", "1", code=None)
    by_image = search(embedded[0], "--image", image, code=None)

    found = json.loads(by_text[1])
    assert (found["path"], found["score"]) == ("c1", pytest.approx(1, abs=1e-6))
    ids = [json.loads(line)["path"] for line in by_image[1].splitlines()]
    assert sorted(ids) == ["c0", "c1", "c3", "c4", "c5"]


def test_a_model_without_texts_is_one_line(
    checkpoint: Path, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGLIP_TEXT", "off")

    code, _, errors = run(checkpoint, "--texts", captions, "-o", tmp_path / "out.npy")

    assert (code, errors) == (2, "no texts here: SIGLIP_TEXT is off\n")
    assert [*tmp_path.iterdir()] == []
