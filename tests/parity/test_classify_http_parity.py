"""Labels of photographs over HTTP against transformers' zero-shot pipeline, both generations.

It pads to 64 tokens whatever the checkpoint has, so the checkpoints here have 64.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    Siglip2ImageProcessorPil,
    Siglip2Tokenizer,
    SiglipImageProcessorPil,
    SiglipTokenizer,
    ZeroShotImageClassificationPipeline,
)

from app.settings import Settings
from tests.app.images import encode
from tests.app.service_server import ServiceServer, run_service
from tests.reference import edit_tensors
from tests.text_reference import Generation, write_full_checkpoint
from tests.tokenizer_files import train_bpe, write_siglip2_tokenizer, write_siglip_tokenizer

LABELS = ["a red bicycle", "Two cats in the snow", "кофе", "赤い自転車", "a rocket"]
MAX_DIFFERENCE = 1e-4
# Such that the scores of these weights are spread over all of 0 to 1.
LOGIT_SCALE, LOGIT_BIAS = math.log(20.0), -2.0


@dataclass(frozen=True)
class Served:
    """A service, and the reference's pipeline for its checkpoint."""

    service: ServiceServer
    pipeline: Any


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    generation: Generation = request.param
    folder = tmp_path_factory.mktemp(generation)
    if generation == "siglip":
        write_siglip_tokenizer(folder)
        tokenizer = SiglipTokenizer.from_pretrained(folder)
        images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    else:
        write_siglip2_tokenizer(folder, train_bpe())
        tokenizer = Siglip2Tokenizer.from_pretrained(folder, padding_side="right")
        images = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    images.save_pretrained(folder)
    tokenizer.model_input_names = ["input_ids"]  # as published: padding is seen
    model = write_full_checkpoint(
        folder, generation, vocab_size=len(tokenizer) + 1, max_position_embeddings=64
    ).model
    for name, value in (("logit_scale", LOGIT_SCALE), ("logit_bias", LOGIT_BIAS)):
        edit_tensors(folder, {name: torch.tensor([value])})
        getattr(model, name).data.fill_(value)
    pipeline = ZeroShotImageClassificationPipeline(
        model=model, tokenizer=tokenizer, image_processor=images
    )
    settings = Settings(model=str(folder), device="cpu", dtype="float32", text="on")
    with run_service(settings) as service:
        service.wait_for_status("ok")
        yield Served(service, pipeline)


@pytest.mark.parametrize("template", ["This is a photo of {}.", "{}"])
def test_scores_are_those_of_the_references_pipeline(
    served: Served, photographs: list[Image.Image], template: str
) -> None:
    files = [("images", ("a.png", encode(photograph, "PNG"))) for photograph in photographs]
    fields = {"labels": LABELS, "template": template}
    answer = served.service.client.post("/classify", files=files, data=fields)
    expected = served.pipeline(photographs, candidate_labels=LABELS, hypothesis_template=template)

    assert answer.status_code == 200, answer.text
    for item, labels in zip(answer.json()["data"], expected, strict=True):
        theirs = {label["label"]: label["score"] for label in labels}
        ours = {label["label"]: label["score"] for label in item["labels"]}
        assert ours == pytest.approx(theirs, abs=MAX_DIFFERENCE)
        assert [*ours] == [*theirs]
        assert max(ours.values()) - min(ours.values()) > 0.05  # or a mistake would hardly show


def test_softmax_is_that_of_the_references_logits(
    served: Served, photographs: list[Image.Image]
) -> None:
    (photograph, *_) = photographs
    answer = served.service.client.post(
        "/classify",
        files=[("images", ("a.png", encode(photograph, "PNG")))],
        data={"labels": LABELS, "scoring": "softmax"},
    )
    theirs = served.pipeline(photograph, candidate_labels=LABELS)
    logits = torch.logit(torch.tensor([label["score"] for label in theirs], dtype=torch.float64))

    ours = [label["score"] for label in answer.json()["data"][0]["labels"]]
    assert ours == pytest.approx(logits.softmax(0).tolist(), abs=MAX_DIFFERENCE)
