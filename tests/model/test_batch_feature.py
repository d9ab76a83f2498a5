"""BatchFeature, and how a model takes it: as the reference's, whole or by name."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from model import (
    BatchFeature,
    Siglip2ImageProcessor,
    Siglip2VisionModel,
    SiglipImageProcessor,
    SiglipVisionModel,
)
from tests.naflex_reference import write_naflex_checkpoint
from tests.reference import ReferenceCheckpoint


@pytest.fixture
def inputs() -> BatchFeature:
    """One tensor of each kind."""
    return BatchFeature(pixel_values=torch.rand(1, 3), spatial_shapes=torch.tensor([[300, 301]]))


def test_tensors_are_items_and_attributes(inputs: BatchFeature) -> None:
    assert list(inputs.keys()) == ["pixel_values", "spatial_shapes"]
    assert inputs["pixel_values"] is inputs.pixel_values
    assert dict(**inputs) == inputs


def test_an_absent_name_says_which_there_are(inputs: BatchFeature) -> None:
    with pytest.raises(AttributeError, match="no input_ids, only pixel_values, spatial_shapes"):
        _ = inputs.input_ids
    with pytest.raises(KeyError):
        _ = inputs["input_ids"]


@pytest.mark.parametrize("way", ["positional", "keyword"])
def test_a_cast_leaves_whole_numbers_as_they_are(inputs: BatchFeature, way: str) -> None:
    cast = inputs.to(torch.bfloat16) if way == "positional" else inputs.to(dtype=torch.bfloat16)
    assert cast is inputs  # as in the reference
    assert inputs.pixel_values.dtype == torch.bfloat16
    assert inputs.spatial_shapes.tolist() == [[300, 301]]
    assert inputs.spatial_shapes.dtype == torch.int64


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_all_tensors_move(inputs: BatchFeature, device: str | torch.device) -> None:
    inputs.to(device, torch.float16)
    assert {tensor.device.type for tensor in inputs.values()} == {"meta"}
    assert inputs.pixel_values.dtype == torch.float16


def test_copies_and_pickles_are_whole(inputs: BatchFeature) -> None:
    unpickled = pickle.loads(pickle.dumps(inputs))  # noqa: S301 # our own bytes
    for twin in (copy.copy(inputs), copy.deepcopy(inputs), unpickled):
        assert isinstance(twin, BatchFeature)
        assert torch.equal(twin.pixel_values, inputs.pixel_values)


@torch.inference_mode()
def test_a_model_takes_it_whole_by_name_and_in_parts(
    tiny_checkpoint: ReferenceCheckpoint, photographs: list[Image.Image]
) -> None:
    model = SiglipVisionModel.from_pretrained(tiny_checkpoint.folder)
    processor = SiglipImageProcessor.from_pretrained(tiny_checkpoint.folder)
    inputs = processor(images=photographs, return_tensors="pt").to(model.device)
    theirs = SiglipImageProcessorPil.from_pretrained(tiny_checkpoint.folder)(
        photographs, return_tensors="pt"
    )
    assert inputs.keys() == theirs.keys()
    expected = model(inputs["pixel_values"]).pooler_output
    for outputs in (
        model(processor(photographs)),
        model(**inputs),
        model(pixel_values=inputs.pixel_values),
        model(inputs, interpolate_pos_encoding=True),
        model(dict(inputs)),
    ):
        assert torch.equal(outputs.pooler_output, expected)
    torch.testing.assert_close(model(theirs).pooler_output, expected)


@torch.inference_mode()
def test_a_naflex_model_takes_it_whole_by_name_and_in_parts(
    tmp_path: Path, photographs: list[Image.Image]
) -> None:
    write_naflex_checkpoint(tmp_path)
    model = Siglip2VisionModel.from_pretrained(tmp_path)
    inputs = Siglip2ImageProcessor.from_pretrained(tmp_path)(
        images=photographs, return_tensors="pt"
    )
    expected = model(*inputs.values()).pooler_output
    assert torch.equal(model(inputs).pooler_output, expected)
    assert torch.equal(model(**inputs).pooler_output, expected)


def test_inputs_of_the_other_kind_of_model_are_refused_by_name(
    tiny_checkpoint: ReferenceCheckpoint, photographs: list[Image.Image]
) -> None:
    model = SiglipVisionModel.from_pretrained(tiny_checkpoint.folder)
    with pytest.raises(TypeError, match="pixel_attention_mask"):
        model(Siglip2ImageProcessor()(photographs))


@pytest.mark.parametrize("processor", [SiglipImageProcessor(), Siglip2ImageProcessor()])
@pytest.mark.parametrize("return_tensors", ["np", "tf", "PT", True])
def test_other_tensors_than_pytorchs_are_refused(
    processor: SiglipImageProcessor | Siglip2ImageProcessor,
    return_tensors: str,
    photographs: list[Image.Image],
) -> None:
    with pytest.raises(ValueError, match=f"return_tensors {return_tensors!r} is not supported"):
        processor(photographs, return_tensors=return_tensors)
