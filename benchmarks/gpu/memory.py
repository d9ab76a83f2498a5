"""Stage 9: the device's memory that a batch takes."""

import gc

import torch

from app.engine.embedder import load_embedder
from benchmarks.gpu.material import draw_pixels, graph_sizes, image_side
from benchmarks.gpu.stage import Plan, Results
from benchmarks.report import Row


def measure(plan: Plan, results: Results) -> None:
    """Load for each size of batch anew: what is recorded for one keeps its memory."""
    for shape, batches in ((plan.shape, plan.batches), (plan.large_shape, plan.large_batches)):
        with results.table(f"memory of the device, {shape}") as add:
            for batch in batches:
                with results.attempt(f"{shape}, batch {batch}"):
                    add(_row(plan, shape, batch))


def _row(plan: Plan, shape: str, batch: int) -> Row:
    device = plan.torch_device
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    free_before, _ = torch.cuda.mem_get_info(device)
    embedder = load_embedder(f"random:{shape}", plan.device, "bfloat16", batch)
    pixels = draw_pixels(batch, image_side(shape))
    waits = [embedder.begin(pixels, batch) for _ in range(embedder.batches_in_flight)]
    for wait in waits:
        wait()
    free_after, _ = torch.cuda.mem_get_info(device)
    return {
        "largest batch": batch,
        "in flight": embedder.batches_in_flight,
        "graphs": graph_sizes(embedder),
        "MiB at most": torch.cuda.max_memory_allocated(device) / 2**20,
        "MiB reserved": torch.cuda.max_memory_reserved(device) / 2**20,
        "MiB of the device": (free_before - free_after) / 2**20,
    }
