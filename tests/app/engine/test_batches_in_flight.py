"""Two batches on the device at a time: when a second one begins, and what becomes of both."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from app.engine import in_flight
from app.engine.batcher import Batcher
from app.engine.forward import Outcome, OwnVectors
from app.engine.in_flight import Batch, InFlight
from app.engine.job import Job
from app.errors import DrainingError, InternalError, WorkerDeadError
from tests.app.fake_embedder import (
    ENDS_THREAD,
    FAILS_TO_BEGIN,
    LOSES_DEVICE,
    RAISES,
    SIDE,
    FakeEmbedder,
)

WAIT_S = 30
# Long enough for a thread that should not begin a batch to begin it.
_NOT_BEGUN_S = 0.2


@pytest.fixture
def fake() -> Iterator[FakeEmbedder]:
    """An embedder for two batches at a time, whose gate is closed until the test opens it."""
    fake = FakeEmbedder(batches_in_flight=2)
    fake.gate.clear()
    yield fake
    fake.gate.set()


@pytest.fixture
def batcher(fake: FakeEmbedder) -> Iterator[Batcher]:
    """A batcher of up to four images."""
    batcher = Batcher(fake, max_batch_size=4, restart_delay_s=0.01)
    yield batcher
    fake.gate.set()
    batcher.stop(WAIT_S)


def submit(batcher: Batcher, *reds: int) -> Job:
    """Submit images of one shade of red each."""
    job = Job([np.full((SIDE, SIDE, 3), (red, 0, 0), np.uint8) for red in reds], patches=False)
    batcher.submit(job)
    return job


def begin_two(batcher: Batcher, fake: FakeEmbedder, *reds: int) -> Job:
    """Have two full batches on the device, the first eight images of a job."""
    job = submit(batcher, *reds)
    fake.wait_until_entered()
    fake.wait_until_entered()
    return job


def begins_another(fake: FakeEmbedder) -> bool:
    """Tell whether one more batch begins before long."""
    return fake.entered.acquire(timeout=_NOT_BEGUN_S)


def reds_of(fake: FakeEmbedder) -> list[list[int]]:
    """Return the shades of every batch that was waited for."""
    return [[red for red, _, _ in batch.colours] for batch in fake.batches]


def results_of(job: Job) -> list[float | type]:
    """Return the red of each vector, and the type of each error."""
    outcomes: list[Outcome] = job.future.result(WAIT_S)
    return [o.pooled[0] if isinstance(o, OwnVectors) else type(o) for o in outcomes]


def test_a_full_batch_begins_before_the_one_on_the_device_has_come_back(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    job = begin_two(batcher, fake, *range(8))
    assert not fake.batches
    fake.gate.set()

    assert results_of(job) == [*range(8)]
    assert reds_of(fake) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_batch_that_is_not_full_waits_and_grows(batcher: Batcher, fake: FakeEmbedder) -> None:
    jobs = [submit(batcher, *range(7))]
    fake.wait_until_entered()
    assert not begins_another(fake)
    jobs.append(submit(batcher, 20))
    fake.gate.set()

    assert [results_of(job) for job in jobs] == [[*range(7)], [20]]
    assert reds_of(fake) == [[0, 1, 2, 3], [4, 5, 20, 6]]


def test_a_batch_is_not_full_of_cancelled_images(batcher: Batcher, fake: FakeEmbedder) -> None:
    fake.memory_images = 4  # three more beside the four would fail and be halved
    jobs = [submit(batcher, 1)]
    fake.wait_until_entered()
    jobs += [submit(batcher, *range(10, 14)), submit(batcher, 20, 21), submit(batcher, 30)]
    cancelled = submit(batcher, 40)
    cancelled.future.cancel()
    fake.gate.set()

    assert [len(results_of(job)) for job in jobs] == [1, 4, 2, 1]
    assert reds_of(fake) == [[1], [10, 11, 12, 20], [13, 30, 21]]


def test_no_more_than_two_batches_are_in_flight(batcher: Batcher, fake: FakeEmbedder) -> None:
    job = begin_two(batcher, fake, *range(12))
    assert not begins_another(fake)
    fake.gate.set()

    assert results_of(job) == [*range(12)]
    assert [len(reds) for reds in reds_of(fake)] == [4, 4, 4]


def test_an_embedder_of_one_batch_at_a_time_gets_one() -> None:
    fake = FakeEmbedder(batches_in_flight=1)
    fake.gate.clear()
    batcher = Batcher(fake, max_batch_size=1)
    job = submit(batcher, 1, 2)
    fake.wait_until_entered()
    assert not begins_another(fake)
    fake.gate.set()
    batcher.stop(WAIT_S)

    assert results_of(job) == [1, 2]


@pytest.mark.parametrize("place", [1, 6])
@pytest.mark.parametrize("fault", [FAILS_TO_BEGIN, RAISES])
def test_only_the_culprit_fails_whether_beginning_or_waiting(
    batcher: Batcher, fake: FakeEmbedder, fault: int, place: int
) -> None:
    reds, expected = [*range(8)], [*range(8)]
    reds[place], expected[place] = fault, InternalError
    job = begin_two(batcher, fake, *reds)
    fake.gate.set()

    assert results_of(job) == expected


def test_what_does_not_fit_beside_the_first_is_computed_in_halves_after_it(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    fake.memory_images = 7
    job = begin_two(batcher, fake, *range(8))
    assert reds_of(fake) == [[4, 5, 6, 7]]  # could not begin
    fake.gate.set()

    assert results_of(job) == [*range(8)]
    assert reds_of(fake)[1:] == [[0, 1, 2, 3], [4, 5], [6, 7]]


def test_both_batches_and_the_queue_hear_of_a_thread_that_dies(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    job = begin_two(batcher, fake, ENDS_THREAD, *range(8))
    fake.gate.set()

    assert results_of(job) == [WorkerDeadError] * 9


def test_the_next_life_does_not_wait_for_batches_of_the_last(fake: FakeEmbedder) -> None:
    fake.gate.set()
    batcher = Batcher(fake, max_batch_size=1, restart_delay_s=0.01)
    results_of(submit(batcher, ENDS_THREAD))
    while not batcher.alive:
        time.sleep(0.002)
    assert results_of(submit(batcher, 10)) == [10]
    batcher.stop(WAIT_S)

    assert reds_of(fake) == [[ENDS_THREAD], [10]]


def test_a_lost_device_fails_both_batches_and_is_not_tried_again(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    job = begin_two(batcher, fake, LOSES_DEVICE, *range(7))
    fake.gate.set()

    assert results_of(job) == [WorkerDeadError] * 8
    batcher.stop(WAIT_S)
    assert reds_of(fake) == [[LOSES_DEVICE, 0, 1, 2]]


def test_stopping_finishes_both_and_what_is_queued(batcher: Batcher, fake: FakeEmbedder) -> None:
    job = begin_two(batcher, fake, *range(9))
    opening = threading.Timer(0.05, fake.gate.set)
    opening.start()
    batcher.stop(WAIT_S)
    opening.join()

    assert results_of(job) == [*range(9)]
    assert not batcher.alive


def test_all_are_told_when_the_time_to_stop_is_over(batcher: Batcher, fake: FakeEmbedder) -> None:
    job = begin_two(batcher, fake, *range(9))
    batcher.stop(0.05)

    assert results_of(job) == [DrainingError] * 9
    fake.gate.set()
    batcher.stop(WAIT_S)
    assert not batcher.stalled
    assert reds_of(fake) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_nobody_waits_for_two_batches_that_do_not_come_back(
    batcher: Batcher, fake: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begin_two(batcher, fake, *range(9))
    assert not batcher.stalled
    monkeypatch.setattr(in_flight, "_STALL_S", 0.0)
    assert batcher.stalled
    batcher.fail_all()

    assert results_of(job) == [WorkerDeadError] * 9
    fake.gate.set()
    assert results_of(submit(batcher, 20)) == [20]


def test_the_rate_of_a_batch_counts_from_when_the_one_before_had_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("app.engine.in_flight.time.monotonic", lambda: now)
    batches = InFlight()
    ticket = (Job([], patches=False), 0)
    batches.add(Batch([ticket] * 8, begun_at=100.0))
    batches.add(Batch([ticket] * 4, begun_at=100.5))

    rates = []
    for finished_at in (102.0, 103.0):
        now = finished_at
        batches.finish_oldest()
        batches.remove_oldest()
        rates.append(batches.per_second("image"))

    # 8 images in 2 s; then 4 in 1 s, for which the second batch had the device to itself
    assert rates == pytest.approx([4.0, 4.0])


def test_the_second_batch_is_given_its_own_time_before_it_is_a_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("app.engine.in_flight.time.monotonic", lambda: now)
    batches = InFlight()
    ticket = (Job([], patches=False), 0)
    batches.add(Batch([ticket], begun_at=0.0))
    batches.add(Batch([ticket], begun_at=0.0))
    now = 59.0
    batches.finish_oldest()
    batches.remove_oldest()

    now = 59.0 + 20 * 59.0 - 1
    assert not batches.stalled
    now = 59.0 + 20 * 59.0 + 1
    assert batches.stalled
    assert not batches.stalled_for_good


def test_the_rate_of_a_line_counts_the_turns_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("app.engine.in_flight.time.monotonic", lambda: now)
    batches = InFlight()
    for began_at, finished_at, modality, count in (
        (1.0, 2.0, "image", 8),  # nobody was before it
        (2.0, 2.5, "text", 30),  # waited through the images' second
        (2.5, 3.5, "image", 12),  # and these through the texts' half
    ):
        job = Job([], modality=modality, queued_at=0.5)  # type: ignore[arg-type]
        batches.add(Batch([(job, 0)] * count, begun_at=began_at))
        now = finished_at
        batches.finish_oldest()
        batches.remove_oldest()
        if finished_at == 2.0:
            assert batches.per_second("image") == pytest.approx(8.0)

    assert batches.per_second("text") == pytest.approx(20.0)
    assert batches.per_second("image") == pytest.approx(8.0)
