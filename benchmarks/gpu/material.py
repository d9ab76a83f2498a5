"""What the stages run on. Neither weights nor photographs: the machine may have no network."""

import importlib.util
import io
import shutil
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from app.engine.protocol import Embedder, UInt8Array
from app.engine.towers.batch import Outputs, Tower
from app.engine.towers.cuda import CudaRunner
from app.engine.towers.device import configure_device
from app.engine.towers.loading import load_plain_model
from app.engine.towers.recording import cuda_recorder
from app.engine.towers.selftest import draw_test_image
from benchmarks.gpu.stage import Plan
from model import SiglipVisionConfig
from model.published import forward_flop

Forward = Callable[[], Outputs]


def draw_pixels(batch: int, side: int) -> UInt8Array:
    """Draw images at a model's input size: uint8 (batch, side, side, 3), all different."""
    image = draw_test_image(side)
    return np.stack([np.roll(image, 7 * turn, axis=1) for turn in range(batch)])


def draw_jpeg() -> bytes:
    """Draw a JPEG of 640x480: a photograph, where scikit-image has them."""
    file = io.BytesIO()
    _draw_picture().save(file, "JPEG", quality=90)
    return file.getvalue()


def _draw_picture() -> Image.Image:
    if importlib.util.find_spec("skimage") is None:
        return Image.fromarray(draw_test_image(640)[:480])
    from benchmarks.material import photograph_of_size

    return photograph_of_size(640, 480)


def build_forward(plan: Plan, shape: str, batch: int, *, compilable: bool = False) -> Forward:
    """Build the tower alone, in bfloat16, with its inputs on the device already."""
    loaded = load_plain_model(f"random:{shape}", None, (), None)
    options = {"compilable": True} if compilable else {}
    device = plan.torch_device
    configure_device(device)
    tower: Tower = loaded.family.fused_tower(
        loaded.model.vision_model, loaded.processor, device, torch.bfloat16, consume=True, **options
    )
    if compilable:
        tower = torch.compile(tower, dynamic=False, fullgraph=True)
    pixels = torch.from_numpy(draw_pixels(batch, image_side(shape))).to(device)

    @torch.inference_mode()
    def forward() -> Outputs:
        return tower(pixels)

    return forward


def record_graph(forward: Forward, device: torch.device) -> Callable[[], None]:
    """Capture a CUDA graph of a forward as the service does; calling the result replays it.

    On the current stream, which is timed: nothing else runs meanwhile.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # of torch
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        recording = cuda_recorder()(lambda _: forward(), torch.empty(0, device=device))
    torch.cuda.current_stream(device).wait_stream(stream)
    return recording.replay


def graph_sizes(embedder: Embedder) -> str:
    """Return which sizes of batches are CUDA graphs: none of them where capturing failed."""
    runner = getattr(embedder, "runner", None)
    sizes = runner.graph_sizes if isinstance(runner, CudaRunner) else ()
    return " ".join(map(str, sizes)) or "none"


def has_compiler(plan: Plan) -> bool:
    """Tell whether torch.compile is worth trying: on a CUDA device, with a C compiler."""
    return plan.on_cuda and bool(shutil.which("gcc") or shutil.which("cc"))


def image_side(shape: str) -> int:
    """Return the side in pixels of a named shape's images."""
    return SiglipVisionConfig.from_shape(shape).image_size


def gflop_of(shape: str) -> float:
    """Return the operations of one image, in units of 1e9."""
    return forward_flop(SiglipVisionConfig.from_shape(shape)) / 1e9
