"""Which runner suits a device."""

import torch

from app.engine.towers.batch import Collate, Tower
from app.engine.towers.cuda import CudaRunner
from app.engine.towers.plain import PlainRunner
from app.engine.towers.runner import Runner


def pick_runner(
    tower: Tower, collate: Collate, device: torch.device, max_tokens: int, *, graphs: bool
) -> Runner:
    """Return what runs a tower as it is.

    `max_tokens` is the most that one input may have; `graphs` says whether to record CUDA graphs.
    """
    if device.type == "cuda":
        return CudaRunner(tower, collate, device, tower if graphs else None)
    return PlainRunner(tower, collate, device, max_tokens)
