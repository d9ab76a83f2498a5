"""Recorded work, with a recording that a CPU can make: the same places in memory every time."""

from contextlib import nullcontext
from functools import partial
from unittest.mock import MagicMock

import pytest
import torch

from app.engine.towers.batch import Batch, Outputs, Tower
from app.engine.towers.recording import RecordedTower, Recording, cuda_recorder
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling

CPU = torch.device("cpu")
MAX_BATCH_SIZE = 6


def batch_of(*shape: int, dtype: torch.dtype = torch.uint8) -> Batch:
    """Make a batch of which only the shape matters."""
    return Batch(shape, lambda _: None, dtype=dtype)


ANY = batch_of(MAX_BATCH_SIZE, 2, 2)
pick_all = partial(ANY.pick_wanted, patches_of=MAX_BATCH_SIZE)


def tower(pixels: torch.Tensor) -> Outputs:
    """Give each image its values as patches, and their sum."""
    patches = pixels.flatten(1).float()[..., None]
    return BaseModelOutputWithPooling(patches, patches.sum(1))


def headless(pixels: torch.Tensor) -> Outputs:
    return tower(pixels)._replace(pooler_output=None)  # type: ignore[attr-defined] # of the tuple


class EagerRecorder:
    """Records as a CUDA graph does: a replay reads and writes where the recording did."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.replayed: list[int] = []

    def __call__(self, tower: Tower, inputs: torch.Tensor) -> Recording:
        self.sizes.append(len(inputs))
        outputs = tower(inputs)

        def replay() -> None:
            self.replayed.append(len(inputs))
            new = tower(inputs)
            outputs.last_hidden_state.copy_(new.last_hidden_state)
            if outputs.pooler_output is not None and new.pooler_output is not None:
                outputs.pooler_output.copy_(new.pooler_output)

        return Recording(replay, outputs)


@pytest.fixture
def recorder() -> EagerRecorder:
    return EagerRecorder()


@pytest.fixture
def recorded(recorder: EagerRecorder) -> RecordedTower:
    return RecordedTower(tower, recorder, batch_of(MAX_BATCH_SIZE, 2, 2), CPU)


def draw(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 2, 2), generator=generator, dtype=torch.uint8)


def check(results: dict[str, torch.Tensor], pixels: torch.Tensor) -> None:
    expected = tower(pixels)
    assert torch.equal(results["patches"], expected.last_hidden_state)
    assert torch.equal(results["pooled"], expected.pooler_output)  # type: ignore[arg-type] # has one


def test_each_bucket_is_recorded_once_the_largest_first(
    recorded: RecordedTower, recorder: EagerRecorder
) -> None:
    assert recorder.sizes == [6, 4, 2, 1]
    assert recorded.sizes == (1, 2, 4, 6)


def test_every_size_is_one_replay_of_its_bucket_and_gives_its_own_rows_only(
    recorded: RecordedTower, recorder: EagerRecorder
) -> None:
    """Larger batches come first: their rows are still there, and must not be seen."""
    for count in range(MAX_BATCH_SIZE, 0, -1):
        pixels = draw(count, seed=count)
        check(recorded.run(pixels, pick_all), pixels)

    assert recorder.replayed == [6, 6, 4, 4, 2, 1]


def test_what_was_given_stays_as_it_is_when_the_next_batch_runs(recorded: RecordedTower) -> None:
    batches = [draw(count, seed) for seed, count in enumerate((4, 4, 3, 6, 1, 1))]
    results = [recorded.run(pixels, pick_all) for pixels in batches]

    for own, pixels in zip(results, batches, strict=True):
        check(own, pixels)


def test_only_what_is_wanted_is_copied_out(recorded: RecordedTower) -> None:
    assert list(recorded.run(draw(2, 0), partial(ANY.pick_wanted, patches_of=0))) == ["pooled"]


def test_a_tower_without_head_has_patches_only(recorder: EagerRecorder) -> None:
    recorded = RecordedTower(headless, recorder, batch_of(2, 2, 2), CPU)
    assert list(recorded.run(draw(1, 0), pick_all)) == ["patches"]


@pytest.mark.parametrize(
    ("batch", "takes"),
    [
        (batch_of(1, 2, 2), True),
        (batch_of(MAX_BATCH_SIZE, 2, 2), True),
        (batch_of(MAX_BATCH_SIZE + 1, 2, 2), False),
        (batch_of(1, 2, 3), False),
        (batch_of(1, 2), False),
        (batch_of(1, 2, 2, dtype=torch.int64), False),
        (batch_of(1, 2, 2)._replace(beside=([(1, 2)],)), False),
    ],
)
def test_only_batches_like_the_recorded_one_are_taken(
    recorded: RecordedTower, batch: Batch, takes: bool
) -> None:
    assert recorded.takes(batch) == takes


def test_workspaces_go_before_the_memory_of_a_broken_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They may lie in it. The calls are torch's, which a CPU can only be asked to note."""
    calls: list[str] = []
    notes = ("_cuda_endAllocateToPool", "_cuda_releasePool", "_cuda_clearCublasWorkspaces")
    for name in notes:
        note = partial(lambda name, *_: calls.append(name), name)
        monkeypatch.setattr(torch._C, name, note, raising=False)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: nullcontext())
    broken = MagicMock(side_effect=[None, ValueError("while it is captured")])

    with pytest.raises(ValueError, match="while it is captured"):
        cuda_recorder()(broken, torch.zeros(1))

    ended = calls.index("_cuda_endAllocateToPool")
    assert calls[ended : ended + 3] == [
        "_cuda_endAllocateToPool",
        "_cuda_clearCublasWorkspaces",
        "_cuda_releasePool",
    ]
