"""The one way to load a model for the engine, whatever its kind."""

from collections.abc import Callable, Sequence

import torch

from app.engine.device import configure_device, pick_device, pick_dtype
from app.engine.loading import LoadedNaflex, load_model
from app.engine.naflex_embedder import build_naflex_embedder
from app.engine.protocol import Embedder, StartError
from app.engine.siglip_embedder import build_siglip_embedder

__all__ = ["StartError", "load_embedder"]

# In a smaller model the threads' meeting after each step takes longer than the step.
_FEWEST_PARALLEL_WEIGHTS = 5_000_000


def load_embedder(  # noqa: PLR0913 # each of them decides the vectors or who may start
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    max_batch_size: int | None = None,
    *,
    compiled: bool = False,
    decode: str = "exact",
    revision: str | None = None,
    sha256: Sequence[str] = (),
    random_fallback: bool = False,
) -> Embedder:
    """Load a model by hub id, local folder or `random:<shape>`, warm it up and test it.

    Without a `max_batch_size` there is one that suits the device and fits into it. `decode` is how
    images become pixels, exact or fast: it decides what resizes them, and counts towards the space.
    With `random_fallback` an unreachable hub leads to random weights instead of an error. `sha256`
    is what the weight files must have, if given. Raises `StartError`.
    """
    torch_device = pick_device(device)
    torch_dtype = pick_dtype(dtype, torch_device)
    configure_device(torch_device)
    if compiled and torch_dtype == torch.int8:
        raise StartError("SIGLIP_COMPILE=on does not go with SIGLIP_DTYPE=int8")
    loaded = load_model(model, revision, sha256, random_fallback=random_fallback)
    if decode == "fast":
        loaded = loaded.resizing_with_torch()
    if sum(weight.numel() for weight in loaded.model.parameters()) < _FEWEST_PARALLEL_WEIGHTS:
        torch.set_num_threads(1)
    make_ready: Callable[[int | None], Embedder]
    if isinstance(loaded, LoadedNaflex):
        if compiled:
            raise StartError(f"SIGLIP_COMPILE=on does not go with a NaFlex model, {model}")
        make_ready = build_naflex_embedder(loaded, torch_device, torch_dtype, decode)
    else:
        make_ready = build_siglip_embedder(
            loaded, torch_device, torch_dtype, decode, compiled=compiled
        )
    # Nothing of the checkpoint's file is needed any more, and batches are about to need memory.
    del loaded
    return make_ready(max_batch_size)
