"""POST /v1/embeddings of a real checkpoint, by OpenAI's client: bit for bit the other routes'."""

import base64
from pathlib import Path

import openai
import pytest

from app.settings import Settings
from tests.app.answers import from_base64
from tests.app.images import encode, scene
from tests.app.service_server import run_service
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import train_sentencepiece, write_siglip_tokenizer

TEXTS = ["a photo of a red bicycle", "zwei Katzen im Schnee", ""]
IMAGES = [
    "data:image/png;base64," + base64.b64encode(encode(scene(seed))).decode() for seed in range(3)
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("normalized", [True, False])
def test_vectors_are_those_of_the_other_routes(
    tmp_path: Path, dtype: str, *, normalized: bool
) -> None:
    write_siglip_tokenizer(tmp_path, train_sentencepiece())
    write_full_checkpoint(tmp_path, vocab_size=400)
    settings = Settings(model=str(tmp_path), device="cpu", dtype=dtype, text="on")
    mixed = [item for pair in zip(TEXTS, IMAGES, strict=True) for item in pair]
    with run_service(settings) as service:
        service.wait_for_status("ok")
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
            (model,) = client.models.list()
            answer = client.embeddings.create(
                model=model.id, input=mixed, extra_body={"normalized": normalized}
            )
        options = {"encoding": "base64", "normalize": normalized}
        texts = service.client.post("/embed/text", json={"texts": TEXTS, **options}).json()
        images = service.client.post("/embed", json={"images": IMAGES, **options}).json()

    ours = [item.embedding for item in answer.data]
    assert ours[0::2] == [from_base64(item["embedding"]).tolist() for item in texts["data"]]
    assert ours[1::2] == [from_base64(item["embedding"]).tolist() for item in images["data"]]
    assert answer.usage.total_tokens == texts["usage"]["tokens"]
