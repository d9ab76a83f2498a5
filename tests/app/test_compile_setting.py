"""What SIGLIP_COMPILE asks the model's loaders for."""

from typing import Any

import pytest

from app import main
from app.engine.protocol import NO_TEXTS, ModelInfo, NoTexts
from app.settings import Settings
from tests.app.fake_embedder import FakeEmbedder


@pytest.mark.parametrize(
    ("compile_setting", "compiled", "graphs"),
    [("auto", False, True), ("on", True, True), ("off", False, False)],
)
def test_off_does_without_graphs_as_well(
    monkeypatch: pytest.MonkeyPatch,
    fake_info: ModelInfo,
    compile_setting: str,
    compiled: bool,
    graphs: bool,
) -> None:
    """Recording is tried on CUDA only: here no more can be seen of it than what is asked for."""
    asked: dict[str, Any] = {}

    def load_embedder(*_: object, **options: Any) -> None:
        asked["images"] = (options["compiled"], options["graphs"])

    def load_text_embedder(*_: object, **options: Any) -> NoTexts:
        asked["texts"] = options["graphs"]
        return NO_TEXTS

    monkeypatch.setattr("app.engine.embedder.load_embedder", load_embedder)
    monkeypatch.setattr("app.engine.embedder.load_text_embedder", load_text_embedder)
    settings = Settings.model_validate({"compile": compile_setting})

    main.load_model(settings)
    main.load_texts(settings, fake_info)

    assert asked == {"images": (compiled, graphs), "texts": graphs}


@pytest.fixture
def fake_info() -> ModelInfo:
    return FakeEmbedder().info
