"""SIGLIP_TEXT: what a start finds, says and refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import structlog
from structlog.testing import LogCapture

from app.engine.protocol import NoTexts, StartError
from app.main import load_model, load_texts, load_towers
from app.settings import Settings
from tests.app.service_server import run_service
from tests.reference import ReferenceCheckpoint
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with both towers and a tokenizer; to be read only."""
    folder = tmp_path_factory.mktemp("both")
    write_full_checkpoint(folder, vocab_size=400)
    write_siglip_tokenizer(folder)
    return folder


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "checkpoint"))


def settings(folder: Path | str, **changes: object) -> Settings:
    return Settings(model=str(folder), device="cpu", dtype="float32", **changes)  # type: ignore[arg-type]


def why_none(given: Settings) -> str:
    """Return why a start with these settings takes no texts."""
    texts = load_texts(given, load_model(given).info)
    assert isinstance(texts, NoTexts)
    return texts.reason


def ask(given: Settings) -> httpx.Response:
    with run_service(given) as service:
        service.wait_for_status("ok")
        return service.client.post("/embed/text", json={"texts": ["ant"]})


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What a start says of texts."""
    capture = LogCapture()
    for module in ("app.main", "app.engine.towers.text_builder"):
        monkeypatch.setattr(f"{module}._log", structlog.wrap_logger(None, processors=[capture]))
    return capture


def test_texts_are_taken_where_the_checkpoint_has_them(written: Path, logged: LogCapture) -> None:
    assert ask(settings(written)).status_code == 200
    assert [entry["event"] for entry in logged.entries].count("texts are taken") == 1


def test_off_is_off(written: Path) -> None:
    assert "SIGLIP_TEXT is off" in ask(settings(written, text="off")).json()["error"]["message"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("random:tiny-patch16-32", "random weights"),
        ("random:tiny-patch16-naflex", "random weights"),
    ],
)
def test_random_weights_have_no_texts(model: str, reason: str) -> None:
    assert reason in ask(settings(model)).json()["error"]["message"]


def test_a_checkpoint_without_tokenizer_says_so(tiny_checkpoint: ReferenceCheckpoint) -> None:
    assert why_none(settings(tiny_checkpoint.folder)) == "the checkpoint has no tokenizer"


def test_a_broken_text_side_costs_no_images_and_shows_no_path(
    checkpoint: Path, logged: LogCapture
) -> None:
    (checkpoint / "spiece.model").write_bytes(b"nonsense")

    answer = ask(settings(checkpoint))

    assert answer.json()["error"]["code"] == "text_disabled"
    assert str(checkpoint) not in answer.text
    assert any("spiece.model" in entry.get("reason", "") for entry in logged.entries)


def test_on_refuses_to_start_without(tiny_checkpoint: ReferenceCheckpoint) -> None:
    given = settings(tiny_checkpoint.folder, text="on")
    with pytest.raises(StartError, match="SIGLIP_TEXT=on, but the checkpoint has no tokenizer"):
        load_texts(given, load_model(given).info)


def test_the_space_of_images_has_nothing_to_do_with_texts(written: Path, checkpoint: Path) -> None:
    (checkpoint / "spiece.model").unlink()
    spaces = {
        load_model(settings(folder)).info.space.rpartition(":")[2]
        for folder in (written, checkpoint)
    }
    assert len(spaces) == 1


def test_the_space_of_texts_changes_with_whatever_changes_them(
    written: Path, checkpoint: Path
) -> None:
    def text_space(folder: Path, **changes: object) -> str:
        given = settings(folder)
        if changes:
            given = given.model_copy(update=changes)
        texts = load_texts(given, load_model(given).info)
        assert not isinstance(texts, NoTexts)
        return texts.info.text_space.rpartition(":")[2]

    original = text_space(written)
    assert text_space(checkpoint) == original
    assert text_space(checkpoint, dtype="bfloat16") != original
    config = json.loads((checkpoint / "config.json").read_bytes())
    config["text_config"]["layer_norm_eps"] = 1e-5
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert text_space(checkpoint) != original


def test_the_space_of_texts_changes_with_how_they_are_cleaned(
    written: Path, checkpoint: Path
) -> None:
    (checkpoint / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    spaces = set()
    for folder in (written, checkpoint):
        given = settings(folder)
        texts = load_texts(given, load_model(given).info)
        assert not isinstance(texts, NoTexts)
        spaces.add(texts.info.text_space.rpartition(":")[2])
    assert len(spaces) == 2


def test_images_without_pooled_vectors_have_no_texts(written: Path) -> None:
    given = settings(written)
    images = replace(load_model(given).info, pooled=False)

    texts = load_texts(given, images)

    assert isinstance(texts, NoTexts)
    assert "no pooled vectors" in texts.reason


def test_texts_are_of_the_commit_that_the_images_are_of(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's default branch may have moved in between."""
    asked: list[str | None] = []

    def download(_: str, revision: str | None) -> Path:
        asked.append(revision)
        return written

    monkeypatch.setattr("model.hub.download_checkpoint", download)
    images = load_model(settings(written)).info
    images = replace(images, source="owner/name", revision="0" * 40)

    assert not isinstance(load_texts(settings("owner/name"), images), NoTexts)
    assert {*asked} == {"0" * 40}


def test_texts_are_of_the_model_that_took_the_place_of_an_unreachable_one(written: Path) -> None:
    given = settings("google/siglip-tiny-patch8-32", model_fallback=str(written), text="on")

    towers = load_towers(given)

    assert towers.images.info.source == str(written)
    assert not isinstance(towers.texts, NoTexts)
    assert towers.texts.info.text_space.startswith(f"{written.name}:text:")
