"""Texts over HTTP against transformers: its tokenizers, its text towers, both generations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Siglip2Tokenizer, SiglipTokenizer

from app.settings import Settings
from tests.app.answers import cosines
from tests.app.service_server import run_service
from tests.text_reference import FullCheckpoint, Generation, write_full_checkpoint
from tests.tokenizer_files import (
    train_bpe,
    train_sentencepiece,
    write_siglip2_tokenizer,
    write_siglip_tokenizer,
)

TEXTS = [
    "a photo of a red bicycle",
    "A Photo of a RED bicycle!",
    "",
    "zwei Katzen im Schnee, nachts",
    "雪の中の二匹の猫 🐈🐈",
    "קראתי ספר על חתולים",
    "word " * 100,
    "</s> <eos> <pad> is text",
]


@dataclass(frozen=True)
class Written:
    """A checkpoint with both towers and a tokenizer, and the reference's tokenizer."""

    checkpoint: FullCheckpoint
    tokenizer: Any


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    generation: Generation = request.param
    folder = tmp_path_factory.mktemp(generation)
    if generation == "siglip":
        model = train_sentencepiece()
        vocabulary, write, reference = 400, write_siglip_tokenizer, SiglipTokenizer
        write(folder, model)
    else:
        content = train_bpe()
        vocabulary = 1 + max(
            [*content["model"]["vocab"].values(), *(t["id"] for t in content["added_tokens"])]
        )
        write_siglip2_tokenizer(folder, content)
        reference = Siglip2Tokenizer
    # As wide as towers are at least: rounding averages out over the width.
    checkpoint = write_full_checkpoint(
        folder, generation, vocab_size=vocabulary, hidden_size=256, intermediate_size=512
    )
    return Written(checkpoint, reference.from_pretrained(folder))


def reference_vectors(written: Written) -> np.ndarray:
    length = written.checkpoint.model.config.text_config.max_position_embeddings
    inputs = written.tokenizer(
        TEXTS,
        padding="max_length",
        padding_side="right",
        max_length=length,
        truncation=True,
        return_tensors="pt",
        split_special_tokens=True,
    )
    with torch.inference_mode():
        outputs = written.checkpoint.model.text_model(input_ids=inputs.input_ids)
    return outputs.pooler_output.numpy()


@pytest.mark.parametrize(("dtype", "bar"), [("float32", 0.99999), ("bfloat16", 0.9999)])
def test_texts_over_http_are_the_references(written: Written, dtype: str, bar: float) -> None:
    settings = Settings(model=str(written.checkpoint.folder), device="cpu", dtype=dtype, text="on")
    with run_service(settings) as service:
        service.wait_for_status("ok")
        answer = service.client.post("/embed/text", json={"texts": TEXTS, "normalize": False})

    assert answer.status_code == 200, answer.text
    content = answer.json()
    ours = np.array([item["embedding"] for item in content["data"]])
    assert cosines(ours, reference_vectors(written)).min() >= bar
    assert content["data"][6]["warnings"] == ["text_truncated"]
    assert content["space"] != content["text_space"]


def test_probabilities_follow_from_the_vectors(written: Written) -> None:
    """Cosines of both sides, with the checkpoint's scale and bias, are the reference's logits."""
    model = written.checkpoint.model
    settings = Settings(model=str(written.checkpoint.folder), device="cpu", dtype="float32")
    with run_service(settings) as service:
        service.wait_for_status("ok")
        texts = service.app.state.context.engine.require_service().require_texts()
    assert texts.info.logit_scale == pytest.approx(model.logit_scale.item())
    assert texts.info.logit_bias == pytest.approx(model.logit_bias.item())


def test_texts_that_do_not_fit_the_images_are_not_taken(tmp_path: Path) -> None:
    """Vectors of two lengths cannot be compared."""
    write_siglip_tokenizer(tmp_path)
    write_full_checkpoint(tmp_path, vocab_size=400, projection_size=40)

    with run_service(Settings(model=str(tmp_path), device="cpu", dtype="float32")) as service:
        service.wait_for_status("ok")
        answer = service.client.post("/embed/text", json={"texts": ["ant"]})

    assert answer.json()["error"]["code"] == "text_disabled"
    assert "40" in answer.json()["error"]["message"]
