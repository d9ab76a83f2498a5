"""The bundled model: what its README promises, in float32, in transformers, and over HTTP."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

from app.settings import Settings
from examples.shapes import checkpoint, evaluate, train
from examples.shapes.checkpoint import FOLDER
from examples.shapes.drawing import draw_image
from examples.shapes.world import draw_scene
from model import SiglipImageProcessor, load_tokenizer
from model import SiglipModel as OurModel
from tests.app.service_server import run_service
from tests.instruction_sets import needs_vnni
from tests.reference import relative_difference

README = (FOLDER / "README.md").read_text()
PROMISED = {
    name: float(share)
    for name, share in re.findall(r"^\| (which .*|.* to .*?) \| (0\.\d+|1\.0+) \|$", README, re.M)
}
WEAKNESS = "which of two things, of 48"
# What another processor or dtype may cost.
TOLERANCE = 0.02
FEW = 150  # drawings


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    return evaluate.measure(evaluate.Checkpoint(FOLDER))[0]


@pytest.fixture(scope="module")
def few() -> dict[str, float]:
    """The same of fewer drawings."""
    return evaluate.measure(evaluate.Checkpoint(FOLDER), FEW)[0]


def test_the_checkpoint_is_small() -> None:
    files = [path for path in FOLDER.iterdir() if path.suffix not in (".py", ".md")]

    assert sum(path.stat().st_size for path in files if path.is_file()) <= 3_000_000


def test_the_readme_has_the_figures_that_are_measured(measured: dict[str, float]) -> None:
    assert PROMISED.keys() == measured.keys()
    for name, share in measured.items():
        assert share == pytest.approx(PROMISED[name], abs=TOLERANCE), name


def test_the_model_knows_its_world(measured: dict[str, float]) -> None:
    assert min(share for name, share in measured.items() if name != WEAKNESS) >= 0.95 - TOLERANCE


@torch.inference_mode()
def test_transformers_computes_the_same() -> None:
    random = np.random.default_rng(6)
    scenes = [draw_scene(random) for _ in range(8)]
    images, texts = (
        [draw_image(scene, random) for scene in scenes],
        [str(scene) for scene in scenes],
    )
    theirs = SiglipModel.from_pretrained(FOLDER, dtype=torch.float32)
    ids = SiglipTokenizer.from_pretrained(FOLDER)(
        texts,
        padding="max_length",
        max_length=checkpoint.TOKENS,
        truncation=True,
        return_tensors="pt",
    )["input_ids"]
    pixel_values = SiglipImageProcessorPil.from_pretrained(FOLDER)(images, return_tensors="pt")[
        "pixel_values"
    ]

    ours = OurModel.from_pretrained(FOLDER, dtype="float32")
    our_ids = torch.as_tensor(load_tokenizer(FOLDER)(texts))
    our_pixels = SiglipImageProcessor.from_pretrained(FOLDER)(images)["pixel_values"]
    expected = theirs(input_ids=ids, pixel_values=pixel_values)
    output = ours(our_ids, our_pixels)

    assert torch.equal(our_ids, ids)
    assert (our_pixels - pixel_values).abs().max() <= 1e-6
    for name in ("image_embeds", "text_embeds"):
        assert relative_difference(getattr(output, name), getattr(expected, name)) <= 2e-5
    assert (output.logits_per_image.argmax(1) == torch.arange(8)).all()


@pytest.mark.parametrize(
    ("dtype", "decode"),
    [
        ("float32", "exact"),
        ("float32", "fast"),
        ("bfloat16", "exact"),
        pytest.param("int8", "exact", marks=needs_vnni),
    ],
)
def test_the_service_knows_as_much(dtype: str, decode: str, few: dict[str, float]) -> None:
    settings = Settings(model=str(FOLDER), device="cpu", dtype=dtype, decode=decode, text="on")
    with run_service(settings) as service:
        service.wait_for_status("ok")
        figures, _ = evaluate.measure(evaluate.Service(service.client), FEW)

    for name, share in figures.items():
        assert share >= few[name] - TOLERANCE, name


def test_training_begins(tmp_path: Path) -> None:
    """A few steps of the script that made it, from its tokenizer to files that load."""
    tokenizer = checkpoint.write_tokenizer(tmp_path)
    assert (tmp_path / "spiece.model").read_bytes() == (FOLDER / "spiece.model").read_bytes()

    torch.manual_seed(train.SEED)
    model = checkpoint.build_model()
    train.train(model, tokenizer, steps=2)
    checkpoint.write_checkpoint(model, tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {
        path.name for path in FOLDER.iterdir() if path.suffix in (".json", ".safetensors", ".model")
    }
    assert OurModel.from_pretrained(tmp_path).config == OurModel.from_pretrained(FOLDER).config
