"""A tower's work on batches of a few sizes as CUDA graphs: captured once, replayed from then on.

Run as it is, a tower is some hundred launches, between which the interpreter's lock comes and goes:
beside threads that are busy they take longer than the device does. A replay is one launch.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch

from app.engine.towers.batch import Batch, Outputs, Tower
from app.engine.towers.buckets import bucket_sizes, pick_bucket
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling


class Recording(NamedTuple):
    """A captured CUDA graph: work on inputs at one place, which leaves its outputs at another."""

    replay: Callable[[], None]
    outputs: Outputs


Record = Callable[[Tower, torch.Tensor], Recording]
"""Captures what a tower does with inputs."""


class RecordedTower:
    """A tower as captured CUDA graphs: one for each bucket of batches no larger than `like`.

    All of it is queued on one stream, in order: inputs are copied in before a replay reads them,
    and what is wanted is copied out before the next one writes there. So any number of batches may
    be in flight. What lies in the rest of a bucket is of batches before; no operator of a tower
    mixes rows, and none of these rows is copied out.
    """

    def __init__(self, tower: Tower, record: Record, like: Batch, device: torch.device) -> None:
        self._inputs = torch.zeros(like.shape, dtype=like.dtype, device=device)
        self.sizes = bucket_sizes(len(self._inputs))
        # The largest first: the others find room in what it has taken.
        self._recordings = {
            size: record(tower, self._inputs[:size]) for size in reversed(self.sizes)
        }

    def takes(self, batch: Batch) -> bool:
        """Tell whether a batch is like the one it was made for, and no larger."""
        count, *row = batch.shape
        like = not batch.beside and batch.dtype == self._inputs.dtype
        return like and row == [*self._inputs.shape[1:]] and count <= len(self._inputs)

    def run(
        self, inputs: torch.Tensor, pick: Callable[[Outputs], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Queue a batch; return copies of what `pick` takes of its outputs."""
        count = len(inputs)
        self._inputs[:count].copy_(inputs)
        replay, outputs = self._recordings[pick_bucket(count, self.sizes)]
        replay()
        pooled = outputs.pooler_output
        own = BaseModelOutputWithPooling(
            outputs.last_hidden_state[:count], None if pooled is None else pooled[:count]
        )
        return {name: rows.clone() for name, rows in pick(own).items()}


def cuda_recorder() -> Record:
    """Return what records CUDA graphs, all of which share their memory.

    They may, since only one is replayed at a time and nothing but outputs outlives a replay. They
    are to be replayed on the stream that they are recorded on: the current one, not the default.
    """
    return partial(_record_cuda_graph, torch.cuda.graph_pool_handle())


def _record_cuda_graph(pool: Any, tower: Tower, inputs: torch.Tensor) -> Recording:
    stream = torch.cuda.current_stream(inputs.device)
    # The first use of a shape loads and chooses kernels, which must not happen while recording.
    tower(inputs)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    # cuBLAS keeps a workspace for each thread and stream. The graph's is to be its own: one of
    # everybody's could be freed under it. torch's compiler does the same for its graphs.
    torch._C._cuda_clearCublasWorkspaces()
    cause: BaseException | None = None
    try:
        # What other threads do on the device meanwhile is their own affair.
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            try:
                outputs = tower(inputs)
            except BaseException as error:
                cause = error
                raise
    except BaseException as error:  # noqa: BLE001 # it is raised again, or what caused it
        # A recording that breaks off may leave the allocator taking memory for it, and keeping it.
        # That of pinned memory may too, and nothing in Python undoes it: only a restart is a full
        # cure.
        with suppress(RuntimeError):  # raised where the end of the recording has seen to it
            torch._C._cuda_endAllocateToPool(inputs.device.index, pool)
            # Workspaces that lie in the pool go first, as when torch gives up a graph.
            torch._C._cuda_clearCublasWorkspaces()
            torch._C._cuda_releasePool(inputs.device.index, pool)
        # The end of a broken recording fails as well, and says nothing of why.
        raise (cause or error) from None
    finally:
        torch._C._cuda_clearCublasWorkspaces()
    return Recording(graph.replay, outputs)
