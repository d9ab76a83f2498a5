"""A tower under torch.compile, for batches of a few fixed sizes.

A compiled graph holds for one shape. So batches are padded up to the next power of two, and every
such size is compiled before the service is ready. See docs/decisions/0007-compile.md.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import torch

from app.engine.protocol import DeviceOutOfMemoryError, Pixels, StartError, UInt8Array, Vectors
from app.engine.towers.batch import Batch, Collate, Tower, join_vectors, run_batch
from app.engine.towers.buckets import bucket_sizes, pick_bucket
from app.engine.towers.cuda import CudaRunner
from app.engine.towers.device import explain_device_errors
from app.engine.towers.runner import Runner

_log = structlog.get_logger(__name__)

# torch counts the shapes of all towers of a process together, and stops at 8 unless told otherwise.
_MOST_SHAPES = 64


def pick_compiled_runner(tower: Tower, collate: Collate, device: torch.device) -> Runner:
    """Return what compiles a tower when it warms up, and runs it."""
    runner = CompiledCudaRunner if device.type == "cuda" else CompiledRunner
    return runner(tower, collate, device)


class CompiledCudaRunner(CudaRunner):
    """Records a compiled tower: what is compiled when it warms up is only replayed afterwards.

    So neither the thread nor the compiler's settings matter then, and two batches are in flight.
    """

    def __init__(self, tower: Tower, collate: Collate, device: torch.device) -> None:
        super().__init__(tower, collate, device, _compile(tower), must_record=True)

    def warm_up(self, one: Any, max_batch_size: int) -> None:
        """Compile and record every bucket; raises `StartError` when that fails."""
        _configure_compiler()
        with _explain_compiler_errors():
            super().warm_up(one, max_batch_size)


class CompiledRunner:
    """Runs a tower compiled for a few batch sizes, padding a batch to the next of them.

    Everything happens on one thread of its own, since the compiler's settings belong to a thread.
    """

    batches_in_flight = 1

    def __init__(self, tower: Tower, collate: Collate, device: torch.device) -> None:
        self._forward = partial(run_batch, _compile(tower), device)
        self._collate = collate
        self._buckets: tuple[int, ...] = ()
        self._thread = ThreadPoolExecutor(1, "compiled", _configure_compiler)

    def begin(self, pixels: Pixels, patches_of: int) -> Callable[[], Vectors]:
        """Put a batch off until it is waited for; see `app.engine.towers.runner`."""
        return lambda: self._thread.submit(self._run, pixels, patches_of).result()

    def warm_up(self, one: Any, max_batch_size: int) -> None:
        """Compile every bucket, or read it from the disk; raises `StartError` when that fails.

        The largest comes first: the others then fit into the memory that it took.
        """
        self._buckets = bucket_sizes(max_batch_size)
        for bucket in reversed(self._buckets):
            start = time.monotonic()
            with _explain_compiler_errors():
                self.begin([one] * bucket, bucket)()
            _log.info("compiled", batch=bucket, seconds=round(time.monotonic() - start, 1))

    def enter_thread(self) -> None:
        """Do nothing: another thread computes."""

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return every bucket: each is a program of its own."""
        return bucket_sizes(max_batch_size)

    def _run(self, pixels: Pixels, patches_of: int) -> Vectors:
        largest = self._buckets[-1]
        parts = [
            self._run_padded(pixels[start : start + largest], max(0, patches_of - start))
            for start in range(0, len(pixels), largest)
        ]
        return join_vectors(parts)

    def _run_padded(self, pixels: Pixels, patches_of: int) -> Vectors:
        count = len(pixels)
        bucket = pick_bucket(count, self._buckets)
        vectors = self._forward(_pad(self._collate(pixels), bucket), patches_of)
        return Vectors(*(part if part is None else part[:count] for part in vectors))


def _pad(batch: Batch, count: int) -> Batch:
    """Add rows of zeros to a batch's array, up to so many."""
    own, *rest = batch.shape

    def write(out: UInt8Array) -> None:
        batch.write(out[:own])
        out[own:] = 0

    return batch._replace(shape=(count, *rest), write=write)


def _compile(tower: Tower) -> Tower:
    _make_cache_folder()
    compiled: Tower = torch.compile(tower, dynamic=False, fullgraph=True)
    return compiled


def _make_cache_folder() -> None:
    """Choose where compiled code is kept from start to start: not in /tmp, as torch would."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 # Path's own raises for a user without home
    folder = os.environ.setdefault(
        "TORCHINDUCTOR_CACHE_DIR", str(Path(user_cache, "siglip-embed", "inductor"))
    )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"SIGLIP_COMPILE=on keeps what it compiles in {folder}, which cannot be made; "
            "TORCHINDUCTOR_CACHE_DIR names another folder"
        ) from error


def _configure_compiler() -> None:
    # Importing the compiler takes seconds, so it is imported where it is used only.
    import torch._dynamo.config
    import torch._inductor.config

    # It advises TF32 for float32; who asks for float32 here means all of its digits.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    torch._dynamo.config.recompile_limit = _MOST_SHAPES
    torch._inductor.config.compile_threads = 1  # else processes with a torch each, for ever


@contextmanager
def _explain_compiler_errors() -> Iterator[None]:
    """Make a `StartError` of one line of all but a lack of memory, which a smaller batch helps."""
    try:
        with explain_device_errors():
            yield
    except DeviceOutOfMemoryError:
        raise
    except Exception as error:  # whatever else it is, there is no compiled tower
        raise StartError(f"SIGLIP_COMPILE=on: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """Return the innermost error's first line: those around it tell of torch's own layers."""
    while (inner := getattr(error, "inner_exception", None) or error.__cause__) is not None:
        error = inner
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
