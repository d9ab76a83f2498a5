"""What is recorded, and what is fused for CUDA: `pytest -m gpu` where there is a device.

Written without one: until somebody has run these, nothing here is known to hold.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import NoReturn

import numpy as np
import pytest
import torch
import transformers
from structlog.testing import capture_logs
from torch import nn

from app.engine.embedder import load_embedder
from app.engine.protocol import Embedder
from app.engine.towers.batch import Outputs
from app.engine.towers.cuda import CudaRunner
from app.engine.towers.fixed_family import collate_images
from model import SiglipVisionConfig
from model.fused_attention import PackedAttention, attend_together
from model.fused_cuda import GeluEpilogueLinear
from model.fused_linear import fused_linear
from model.fused_packed_attention import AttentionByLength, PaddedAttention, pick_packed_attention
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling
from model.packing import Packing
from tests.app.answers import cosines
from tests.reference import ReferenceCheckpoint, write_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    # torch's own, from modules that only its compiler imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]

MAX_BATCH_SIZE = 8
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ReferenceCheckpoint:
    """Two layers of base: what is recorded of twelve is the same six times."""
    config = asdict(SiglipVisionConfig()) | {"num_hidden_layers": 2}
    return write_checkpoint(
        tmp_path_factory.mktemp("two-layers"), transformers.SiglipVisionConfig(**config)
    )


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    shape = 2 * MAX_BATCH_SIZE, 224, 224, 3
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def load(
    checkpoint: ReferenceCheckpoint, dtype: str = "bfloat16", *, graphs: bool = True
) -> Embedder:
    return load_embedder(str(checkpoint.folder), "cuda", dtype, MAX_BATCH_SIZE, graphs=graphs)


def needs_capability(major: int) -> None:
    if torch.cuda.get_device_capability() < (major, 0):
        pytest.skip(f"this needs compute capability {major}.0")


def check_same(one: Embedder, other: Embedder, pixels: np.ndarray) -> None:
    """Compare batches of all sizes, one above the largest among them."""
    for count in (8, 11, 7, 5, 4, 3, 2, 1):
        ours, theirs = (own.embed(pixels[:count], patches=True) for own in (one, other))
        assert cosines(ours.pooled, theirs.pooled).min() >= 0.99999
        for own, its in zip(ours.patches, theirs.patches, strict=True):  # type: ignore[arg-type] # both have
            assert cosines(own, its).min() >= 0.9999


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_recorded_work_gives_the_vectors_of_the_same_work_launch_by_launch(
    checkpoint: ReferenceCheckpoint, pixels: np.ndarray, dtype: str
) -> None:
    with capture_logs() as logs:
        recorded = load(checkpoint, dtype)
    assert [log["sizes"] for log in logs if log["event"] == "CUDA graphs"] == [(1, 2, 4, 8)]

    check_same(recorded, load(checkpoint, dtype, graphs=False), pixels)


def test_batches_of_any_two_sizes_may_be_in_flight(
    checkpoint: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    """Of one bucket, whose place in memory both take, and of two, whose memory is shared."""
    embedder = load(checkpoint)
    alone = np.concatenate([embedder.embed(image[None]).pooled for image in pixels])
    for first in range(1, MAX_BATCH_SIZE + 1):
        for second in range(1, MAX_BATCH_SIZE + 1):
            ones, others = pixels[:first], pixels[MAX_BATCH_SIZE : MAX_BATCH_SIZE + second]
            waits = [embedder.begin(ones), embedder.begin(others)]
            assert cosines(waits[0]().pooled, alone[:first]).min() >= 0.9999
            expected = alone[MAX_BATCH_SIZE : MAX_BATCH_SIZE + second]
            assert cosines(waits[1]().pooled, expected).min() >= 0.9999


def test_what_one_thread_has_recorded_another_replays(
    checkpoint: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    """As in the service: the thread that loads is not the one that computes."""
    with ThreadPoolExecutor(1) as loading:
        embedder = loading.submit(load, checkpoint).result()
        with ThreadPoolExecutor(1) as inference:
            inference.submit(embedder.enter_thread).result()
            given = inference.submit(embedder.embed, pixels[:5]).result()

    assert cosines(given.pooled, embedder.embed(pixels[:5]).pooled).min() >= 0.99999


def test_what_cannot_be_recorded_is_computed_launch_by_launch(
    checkpoint: ReferenceCheckpoint, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = load(checkpoint, graphs=False)

    def fail() -> NoReturn:
        raise RuntimeError("no graphs here")

    monkeypatch.setattr("app.engine.towers.cuda.cuda_recorder", fail)
    with capture_logs() as logs:
        embedder = load(checkpoint)

    assert any("NO CUDA GRAPHS" in log["event"] for log in logs)
    check_same(embedder, eager, pixels)


def test_a_recording_that_breaks_off_leaves_device_and_thread_as_they_were(
    checkpoint: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    """What waits for the device cannot be recorded; the stream of this thread is what it was."""
    before = torch.cuda.current_stream()
    weight = torch.ones(3, device=CUDA)

    def tower(pixels: torch.Tensor) -> Outputs:
        patches = pixels.flatten(1, 2).float() * weight
        patches[0, 0, 0].item()
        return BaseModelOutputWithPooling(patches, patches.sum(1))

    with capture_logs() as logs:
        runner = CudaRunner(tower, collate_images, CUDA, tower)
        runner.warm_up(pixels[0], 4)

    assert any("NO CUDA GRAPHS" in log["event"] for log in logs)
    assert torch.cuda.current_stream() == before
    expected = pixels[:3].astype(np.float32).sum((1, 2))
    np.testing.assert_allclose(runner.begin(pixels[:3], False)().pooled, expected, rtol=1e-5)
    with capture_logs() as logs:
        load(checkpoint)
    assert any(log["event"] == "CUDA graphs" for log in logs)


def test_recorders_share_no_memory_with_other_towers(
    checkpoint: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    """Two models in one process, by turns, and one recorded after the other has run."""
    first = load(checkpoint)
    before = first.embed(pixels[:8]).pooled
    second = load(checkpoint, "float16")
    for _ in range(3):
        second.embed(pixels[8:])
        assert np.array_equal(first.embed(pixels[:8]).pooled, before)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("rows", [1, 7, 784])
def test_a_fused_gelu_is_the_plain_one(dtype: torch.dtype, rows: int) -> None:
    if dtype == torch.bfloat16:
        needs_capability(8)
    generator = torch.Generator().manual_seed(0)
    weight, inputs = (torch.randn(n, 256, generator=generator) for n in (512, rows))
    bias, activation = torch.randn(512, generator=generator), nn.GELU("tanh")
    fused = fused_linear(weight / 16, bias, CUDA, dtype, activation)
    assert isinstance(fused, GeluEpilogueLinear)
    own = inputs.to(CUDA, dtype)

    expected = activation(nn.functional.linear(own.float(), fused.weight.float(), bias.to(CUDA)))

    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(fused(own).float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("head_dim", [64, 72, 96])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_attention_by_length_is_that_image_by_image(head_dim: int, dtype: torch.dtype) -> None:
    needs_capability(8)
    assert pick_packed_attention(CUDA, dtype, head_dim, attend_together) is AttentionByLength
    lengths, heads = [256, 1, 17, 200, 64], 4
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3 * heads * head_dim, generator=generator) * head_dim**-0.25
    expected = PackedAttention(Packing(lengths, CPU), attend_together)(qkv, heads)
    packing, own = Packing(lengths, CUDA), qkv.to(CUDA, dtype)

    for attention in (AttentionByLength(packing), PaddedAttention(packing)):
        given = attention(own, heads).float().cpu()
        torch.testing.assert_close(given, expected, rtol=3e-2, atol=3e-2)


def test_float32_keeps_all_digits(checkpoint: ReferenceCheckpoint) -> None:
    load(checkpoint, "float32")
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(512, 512, generator=generator, dtype=torch.double) for _ in range(2))

    product = (one.float().to(CUDA) @ other.float().to(CUDA)).cpu().double()

    # TF32 would be wrong by some 0.01
    exact = one.float().double() @ other.float().double()
    torch.testing.assert_close(product, exact, rtol=0, atol=1e-3)


def test_overflows_are_computed_again_on_the_device(
    checkpoint: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    cpu = load_embedder(str(checkpoint.folder), "cpu", "float32", MAX_BATCH_SIZE)
    expected = cpu.embed(pixels).pooled

    given = load(checkpoint, "float16").embed_in_float32(pixels).pooled

    assert cosines(given, expected).min() >= 0.99999


LOSE_DEVICE = """
import sys
import numpy as np
import torch
from app.engine.embedder import load_embedder
from app.engine.protocol import DeviceLostError
embedder = load_embedder(sys.argv[1], "cuda", "float32", 2)
pixels = np.zeros((1, 224, 224, 3), np.uint8)
embedder.embed(pixels)
torch.zeros(1, device="cuda")[torch.tensor([9], device="cuda")]  # there is no such element
try:
    embedder.embed(pixels)
except DeviceLostError as error:
    print("lost:", type(error.__cause__).__name__)
"""


def test_an_assertion_on_the_device_loses_it(checkpoint: ReferenceCheckpoint) -> None:
    """In a process of its own, whose device is of no use afterwards."""
    result = subprocess.run(
        [sys.executable, "-c", LOSE_DEVICE, str(checkpoint.folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "lost: AcceleratorError" in result.stdout, result.stderr
