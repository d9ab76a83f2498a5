"""What becomes of the text side of checkpoints that are somewhat unusual."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.engine.embedder import load_embedder, load_text_embedder
from app.engine.protocol import NoTexts, TextEmbedder
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of two tiny towers with a tokenizer."""
    write_full_checkpoint(tmp_path, vocab_size=400)
    write_siglip_tokenizer(tmp_path)
    return tmp_path


def load_texts(folder: Path, dtype: str = "float32") -> TextEmbedder:
    images = load_embedder(str(folder), "cpu", "float32").info
    texts = load_text_embedder(images, "cpu", dtype)
    assert not isinstance(texts, NoTexts)
    return texts


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def write_weights(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file(dict(tensors), folder / "model.safetensors")


@pytest.mark.parametrize(("native", "dtype"), [(False, "float32"), (True, "bfloat16")])
def test_beside_int8_images_texts_have_the_dtype_that_the_processor_computes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, native: bool, dtype: str
) -> None:
    capabilities = {"avx512_vnni": True, "avx512_bf16": native}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    assert load_texts(folder, "int8").info.dtype == dtype


def test_a_checkpoint_in_float64_has_the_vectors_of_one_in_float32(folder: Path) -> None:
    expected = load_texts(folder)
    write_weights(folder, {name: weight.double() for name, weight in read_weights(folder).items()})

    texts = load_texts(folder)

    ids = [one.input_ids for one in texts.tokenize(["a red bicycle", ""])]
    torch.testing.assert_close(texts.begin(ids)().pooled, expected.begin(ids)().pooled)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_logits_are_found_beside_the_towers_in_any_shape(
    folder: Path, prefix: str, shape: tuple[int, ...]
) -> None:
    tensors = read_weights(folder)
    for name in ("logit_scale", "logit_bias"):
        tensors[name] = tensors[name].reshape(shape)
    write_weights(folder, {prefix + name: tensor for name, tensor in tensors.items()})

    info = load_texts(folder).info

    assert info.logit_scale == pytest.approx(tensors["logit_scale"].item())
    assert info.logit_bias == pytest.approx(tensors["logit_bias"].item())


def test_logits_that_do_not_fit_cost_no_texts(folder: Path) -> None:
    write_weights(folder, read_weights(folder) | {"logit_bias": torch.ones(2)})

    info = load_texts(folder).info

    assert (info.logit_scale, info.logit_bias) == (None, None)
