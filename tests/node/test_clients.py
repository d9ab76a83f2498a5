"""Clients of Node as they are: their vectors are /embed's and /embed/text's, bit for bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.keys import ApiKeys
from app.settings import Settings
from tests.app.answers import from_base64
from tests.app.images import encode
from tests.app.service_server import ServiceServer, run_service
from tests.node.tools import require_package, run_script
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

KEY = "hush"
TEXT = "a red bicycle"  # of the scripts
REFUSALS_OF_AI_SDK = {
    "too many texts": (413, "overrideMaxEmbeddingsPerCall"),
    "no image": (415, "input 0: these bytes are no image"),
    "dimensions": (400, "of 32 dimensions"),
    "another model": (404, "served here is both-towers"),
}
"""What its users read: status and a part of the message."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceServer]:
    folder = tmp_path_factory.mktemp("both-towers")
    write_siglip_tokenizer(folder)
    write_full_checkpoint(folder, vocab_size=400)
    settings = Settings(
        model=str(folder),
        device="cpu",
        dtype="float32",
        max_batch_size=1,  # an image's last bit may depend on what it is computed with
        api_keys=ApiKeys.of(KEY.encode()),
    )
    with run_service(settings) as running:
        running.client.headers["Authorization"] = f"Bearer {KEY}"
        running.wait_for_status("ok")
        yield running


@pytest.fixture
def arguments(
    service: ServiceServer, photographs: list[Image.Image], tmp_path: Path
) -> list[str | Path]:
    """What the scripts are told: the service, its key, and files of two photographs."""
    paths = [tmp_path / "a.jpg", tmp_path / "b.png"]
    for path, photograph, image_format in zip(paths, photographs, ("JPEG", "PNG"), strict=False):
        path.write_bytes(encode(photograph.resize((120, 90)), image_format))
    return [service.url, KEY, *paths]


@pytest.fixture
def expected(service: ServiceServer, arguments: list[str | Path]) -> dict[str, list[list[float]]]:
    """The text's vector and the images', float32."""
    _, _, *paths = arguments
    files = [("images", Path(path).read_bytes()) for path in paths]
    images = service.client.post("/embed", files=files, data={"encoding": "base64"})
    texts = service.client.post("/embed/text", json={"text": TEXT, "encoding": "base64"})
    image_vectors, text_vectors = (
        [from_base64(item["embedding"]).tolist() for item in answer.json()["data"]]
        for answer in (images, texts)
    )
    return {"text": text_vectors, "images": image_vectors}


@pytest.mark.parametrize("client", ["fetch", "axios"])
def test_vectors_in_every_form(
    client: str, expected: dict[str, Any], arguments: list[str | Path], tmp_path: Path
) -> None:
    if client != "fetch":  # which Node has
        require_package(client)
    printed = run_script(f"{client}.mjs", tmp_path, *arguments)

    assert "415: " in printed.pop("no image")
    assert printed.pop("token ids").startswith("400: token ids are of another model's tokenizer")
    text, images = expected["text"], expected["images"]
    vectors = {"one text": text, "one image": images[:1], "images": images}
    vectors["a text and images"] = [*text, *images]
    assert len(printed) >= 7
    for name, given in printed.items():
        what = name.partition(" in ")[0].partition(" as ")[0]
        assert as_float32(given) == vectors[what], name


def test_ai_sdk(expected: dict[str, Any], arguments: list[str | Path], tmp_path: Path) -> None:
    require_package("@ai-sdk/openai-compatible")
    printed = run_script("ai_sdk.mjs", tmp_path, *arguments)

    text, images = expected["text"], expected["images"]
    assert as_float32(printed.pop("one text")) == text
    assert as_float32(printed.pop("one image")) == images[:1]
    assert as_float32(printed.pop("a text and images")) == [*text, *images]
    assert as_float32(printed.pop("a hundred texts")) == text * 100
    assert printed.pop("tokens of one text") > 0
    for name, (status, words) in REFUSALS_OF_AI_SDK.items():
        message = printed.pop(name)
        assert message.startswith(f"{status}: "), message
        assert words in message
    assert not printed


def as_float32(vectors: list[list[float]]) -> list[list[float]]:
    """Take numbers of JSON for what they were written from."""
    rounded: list[list[float]] = np.array(vectors, np.float32).tolist()
    return rounded
