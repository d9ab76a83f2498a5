"""Work of many owners on shared threads: whose comes next, and what can be cancelled."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from app.engine.turn_executor import TurnExecutor

WAIT_S = 30


@dataclass
class World:
    """An executor with one thread, which is busy until the gate opens."""

    executor: TurnExecutor = field(default_factory=lambda: TurnExecutor(ThreadPoolExecutor(1)))
    gate: threading.Event = field(default_factory=threading.Event)
    ran: list[str] = field(default_factory=list)

    def submit(self, owner: str, name: str) -> Future[None]:
        return self.executor.submit(owner, lambda: self.ran.append(name))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    entered = threading.Event()

    def wait_at_the_gate() -> None:
        entered.set()
        assert world.gate.wait(WAIT_S)

    world.executor.submit("busy", wait_at_the_gate)
    assert entered.wait(WAIT_S)
    yield world
    world.gate.set()
    world.executor.shutdown()


def test_a_single_piece_does_not_wait_for_all_of_a_large_owner(world: World) -> None:
    work = [world.submit("large", f"large{number}") for number in range(8)]
    work.append(world.submit("single", "single"))
    world.gate.set()
    for future in work:
        future.result(WAIT_S)

    assert "single" in world.ran[:4]
    assert [name for name in world.ran if name != "single"] == [f"large{n}" for n in range(8)]


def test_what_was_cancelled_never_runs_and_the_rest_does(world: World) -> None:
    work = [world.submit("a", str(number)) for number in range(6)]
    assert all(work[number].cancel() for number in (0, 2, 5))
    world.gate.set()
    for number in (1, 3, 4):
        work[number].result(WAIT_S)

    assert world.ran == ["1", "3", "4"]


def test_results_and_errors_reach_who_waits(world: World) -> None:
    def fail() -> None:
        raise ValueError("no")

    result, failed = world.executor.submit("a", lambda: 7), world.executor.submit("b", fail)
    world.gate.set()

    assert result.result(WAIT_S) == 7
    with pytest.raises(ValueError, match="no"):
        failed.result(WAIT_S)


def test_shutting_down_cancels_what_has_not_begun(world: World) -> None:
    work = [world.submit("a", "1"), world.submit("b", "2")]
    world.executor.shutdown()

    assert all(future.cancelled() for future in work)
    with pytest.raises(RuntimeError):
        world.submit("a", "3")
    assert not world.ran
