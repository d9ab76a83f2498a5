"""The inference thread: what it computes together, and what becomes of each job."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import numpy as np
import pytest

from app.engine import in_flight
from app.engine.batcher import Batcher
from app.engine.forward import Outcome, OwnVectors
from app.engine.job import Job
from app.engine.protocol import DeviceLostError, UInt8Array
from app.errors import DrainingError, InternalError, NonFiniteError, WorkerDeadError
from tests.app.fake_embedder import (
    ENDS_THREAD,
    GIVES_INFINITE_PATCH,
    GIVES_NAN,
    LOSES_A_ROW,
    LOSES_DEVICE,
    RAISES,
    SIDE,
    FakeEmbedder,
    expected_pooled,
)
from tests.app.fake_text_embedder import FakeTextEmbedder

WAIT_S = 30


@pytest.fixture
def fake() -> Iterator[FakeEmbedder]:
    """A fake embedder whose gate is open after the test, whatever happens."""
    fake = FakeEmbedder()
    yield fake
    fake.gate.set()


@pytest.fixture
def batcher(fake: FakeEmbedder) -> Iterator[Batcher]:
    """A batcher of up to four images that does not wait."""
    batcher = Batcher(fake, max_batch_size=4)
    yield batcher
    fake.gate.set()
    batcher.stop(WAIT_S)


def job_of(*reds: int, patches: bool = False) -> Job:
    """Make a job of images of one shade of red each."""
    return Job([pixels_of(red) for red in reds], patches)


def pixels_of(red: int) -> UInt8Array:
    """Return an image of one shade of red at the model's input size."""
    return np.full((SIDE, SIDE, 3), (red, 0, 0), np.uint8)


def reds_of(fake: FakeEmbedder) -> list[list[int]]:
    """Return the shades of every batch that was computed."""
    return [[red for red, _, _ in batch.colours] for batch in fake.batches]


def kinds_of(outcomes: list[Outcome]) -> list[type]:
    """Return the type of each outcome."""
    return [type(outcome) for outcome in outcomes]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.002)


def occupy(batcher: Batcher, fake: FakeEmbedder) -> Job:
    """Make the device busy with one image until the gate opens."""
    fake.gate.clear()
    job = job_of(1)
    batcher.submit(job)
    fake.wait_until_entered()
    return job


def test_both_towers_are_made_ready_in_the_thread_that_begins_batches(
    fake: FakeEmbedder,
) -> None:
    texts = FakeTextEmbedder()
    batcher = Batcher(fake, max_batch_size=4, texts=texts)
    job = job_of(1)
    batcher.submit(job)
    job.future.result(WAIT_S)
    batcher.stop(WAIT_S)

    assert fake.entered_in == texts.entered_in == ["inference"]


def test_a_device_that_is_lost_before_the_first_batch_is_lost_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: FakeEmbedder) -> None:
        raise DeviceLostError("CUDA error: an illegal memory access")

    monkeypatch.setattr(FakeEmbedder, "enter_thread", fail)
    batcher = Batcher(FakeEmbedder(), max_batch_size=4)

    wait_until(lambda: batcher.lost)
    assert not batcher.alive
    with pytest.raises(WorkerDeadError):
        batcher.submit(job_of(1))
    batcher.stop(WAIT_S)


def test_outcomes_keep_the_order_of_the_job(batcher: Batcher) -> None:
    job = job_of(30, 10, 20)
    batcher.submit(job)

    outcomes = job.future.result(WAIT_S)

    for outcome, red in zip(outcomes, (30, 10, 20), strict=True):
        assert isinstance(outcome, OwnVectors)
        assert outcome.pooled.tolist() == expected_pooled((red, 0, 0))


def test_an_idle_device_takes_a_single_image_at_once(batcher: Batcher, fake: FakeEmbedder) -> None:
    for red in (10, 20, 30):
        job = job_of(red)
        batcher.submit(job)
        job.future.result(WAIT_S)

    assert reds_of(fake) == [[10], [20], [30]]


def test_a_batch_fills_across_jobs_while_the_device_is_busy(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    busy = occupy(batcher, fake)
    jobs = [job_of(10), job_of(20, 21), job_of(30)]
    for job in jobs:
        batcher.submit(job)
    fake.gate.set()
    for job in (busy, *jobs):
        job.future.result(WAIT_S)

    assert reds_of(fake) == [[1], [10, 20, 21, 30]]


def test_no_batch_is_larger_than_allowed(batcher: Batcher, fake: FakeEmbedder) -> None:
    job = job_of(*range(10, 21))
    busy = occupy(batcher, fake)
    batcher.submit(job)
    fake.gate.set()
    busy.future.result(WAIT_S)
    outcomes = job.future.result(WAIT_S)

    assert reds_of(fake) == [[1], [10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 20]]
    assert [o.pooled[0] for o in outcomes if isinstance(o, OwnVectors)] == list(range(10, 21))


def test_a_patient_batcher_waits_for_a_fuller_batch(fake: FakeEmbedder) -> None:
    batcher = Batcher(fake, max_batch_size=3, max_wait_s=20)
    jobs = [job_of(10), job_of(20), job_of(30)]
    for job in jobs:
        batcher.submit(job)
    for job in jobs:
        job.future.result(10)
    batcher.stop(WAIT_S)

    assert reds_of(fake) == [[10, 20, 30]]


def test_a_patient_batcher_does_not_wait_for_ever(fake: FakeEmbedder) -> None:
    batcher = Batcher(fake, max_batch_size=3, max_wait_s=0.05)
    job = job_of(10)
    batcher.submit(job)
    job.future.result(WAIT_S)
    batcher.stop(WAIT_S)

    assert reds_of(fake) == [[10]]


def test_stopping_ends_the_patience(fake: FakeEmbedder) -> None:
    batcher = Batcher(fake, max_batch_size=3, max_wait_s=600)
    job = job_of(10)
    batcher.submit(job)
    batcher.stop(WAIT_S)

    assert kinds_of(job.future.result(0)) == [OwnVectors]


def test_a_cancelled_job_is_never_computed(batcher: Batcher, fake: FakeEmbedder) -> None:
    busy = occupy(batcher, fake)
    cancelled, kept = job_of(10, 11), job_of(20)
    batcher.submit(cancelled)
    batcher.submit(kept)
    assert cancelled.future.cancel()
    fake.gate.set()
    for job in (busy, kept):
        job.future.result(WAIT_S)

    assert reds_of(fake) == [[1], [20]]


def test_a_queue_of_cancelled_jobs_only_does_not_stop_the_thread(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    busy = occupy(batcher, fake)
    for _ in range(10):
        cancelled = job_of(10, 11)
        batcher.submit(cancelled)
        cancelled.future.cancel()
    fake.gate.set()
    busy.future.result(WAIT_S)
    after = job_of(20)
    batcher.submit(after)
    after.future.result(WAIT_S)

    assert reds_of(fake) == [[1], [20]]


def test_a_job_cancelled_while_it_is_computed_disturbs_nobody(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    busy = occupy(batcher, fake)
    assert busy.future.cancel()
    fake.gate.set()
    after = job_of(20)
    batcher.submit(after)

    assert kinds_of(after.future.result(WAIT_S)) == [OwnVectors]
    with pytest.raises(CancelledError):
        busy.future.result(0)


def test_patches_are_computed_only_when_somebody_asked(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    for patches in (False, True):
        job = job_of(10, patches=patches)
        batcher.submit(job)
        job.future.result(WAIT_S)

    assert [batch.patches_of for batch in fake.batches] == [0, 1]


def test_of_a_shared_batch_only_those_get_patches_who_asked(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    busy = occupy(batcher, fake)
    without, with_patches = job_of(10), job_of(20, patches=True)
    batcher.submit(without)
    batcher.submit(with_patches)
    fake.gate.set()
    (plain,) = without.future.result(WAIT_S)
    (patched,) = with_patches.future.result(WAIT_S)
    busy.future.result(WAIT_S)

    assert isinstance(plain, OwnVectors)
    assert plain.patches is None
    assert isinstance(patched, OwnVectors)
    assert patched.patches is not None
    assert patched.patches.tolist() == [[20, 0, 0, 2]] * 4
    assert [batch.patches_of for batch in fake.batches] == [0, 1]


@pytest.mark.parametrize("position", range(4))
def test_only_the_culprit_of_a_failing_batch_fails(batcher: Batcher, position: int) -> None:
    reds = [10, 20, 30, 40]
    reds[position] = RAISES
    job = job_of(*reds)
    batcher.submit(job)

    outcomes = job.future.result(WAIT_S)

    for index, outcome in enumerate(outcomes):
        if index == position:
            assert isinstance(outcome, InternalError)
        else:
            assert isinstance(outcome, OwnVectors)
            assert outcome.pooled[0] == reds[index]


def test_every_image_of_a_batch_may_be_a_culprit(batcher: Batcher) -> None:
    job = job_of(*[RAISES] * 4)
    batcher.submit(job)

    assert kinds_of(job.future.result(WAIT_S)) == [InternalError] * 4
    assert batcher.alive


@pytest.mark.parametrize("position", range(4))
def test_a_row_that_is_not_finite_fails_alone(batcher: Batcher, position: int) -> None:
    reds = [10, 20, 30, 40]
    reds[position] = GIVES_NAN
    job = job_of(*reds)
    batcher.submit(job)

    expected: list[type] = [OwnVectors] * 4
    expected[position] = NonFiniteError
    assert kinds_of(job.future.result(WAIT_S)) == expected


def test_an_infinite_patch_fails_those_who_asked_for_patches(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    busy = occupy(batcher, fake)
    without = job_of(GIVES_INFINITE_PATCH)
    with_patches = job_of(GIVES_INFINITE_PATCH, 10, patches=True)
    batcher.submit(without)
    batcher.submit(with_patches)
    fake.gate.set()
    busy.future.result(WAIT_S)

    assert kinds_of(without.future.result(WAIT_S)) == [OwnVectors]
    assert kinds_of(with_patches.future.result(WAIT_S)) == [NonFiniteError, OwnVectors]


def test_a_model_that_answers_too_few_rows_fails_only_its_batch(batcher: Batcher) -> None:
    job, after = job_of(LOSES_A_ROW), job_of(10)
    batcher.submit(job)
    outcomes = job.future.result(WAIT_S)
    batcher.submit(after)

    assert kinds_of(outcomes) == [InternalError]
    assert kinds_of(after.future.result(WAIT_S)) == [OwnVectors]


def test_pixels_of_unequal_shape_do_not_end_the_thread(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    busy = occupy(batcher, fake)
    job = Job([pixels_of(10), pixels_of(20)[1:]], patches=False)
    batcher.submit(job)
    fake.gate.set()
    busy.future.result(WAIT_S)

    kinds = kinds_of(job.future.result(WAIT_S))

    assert WorkerDeadError not in kinds
    assert batcher.alive


def test_a_thread_that_dies_tells_everybody_who_waits(batcher: Batcher, fake: FakeEmbedder) -> None:
    busy = occupy(batcher, fake)
    culprit, in_batch, queued = job_of(ENDS_THREAD), job_of(10, 11, 12), job_of(20)
    for job in (culprit, in_batch, queued):
        batcher.submit(job)
    fake.gate.set()

    assert kinds_of(busy.future.result(WAIT_S)) == [OwnVectors]
    assert kinds_of(culprit.future.result(WAIT_S)) == [WorkerDeadError]
    assert kinds_of(in_batch.future.result(WAIT_S)) == [WorkerDeadError] * 3
    assert kinds_of(queued.future.result(WAIT_S)) == [WorkerDeadError]
    assert not batcher.alive
    with pytest.raises(WorkerDeadError):
        batcher.submit(job_of(30))


def test_images_computed_before_the_thread_died_keep_their_vectors(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    busy = occupy(batcher, fake)
    job = job_of(10, 11, 12, 13, ENDS_THREAD)
    batcher.submit(job)
    fake.gate.set()
    busy.future.result(WAIT_S)

    kinds = kinds_of(job.future.result(WAIT_S))

    assert kinds == [OwnVectors] * 4 + [WorkerDeadError]


def test_a_thread_that_died_begins_anew_after_a_while(fake: FakeEmbedder) -> None:
    batcher = Batcher(fake, max_batch_size=1, restart_delay_s=0.05)
    culprit = job_of(ENDS_THREAD)
    batcher.submit(culprit)
    assert kinds_of(culprit.future.result(WAIT_S)) == [WorkerDeadError]

    wait_until(lambda: batcher.alive)
    job = job_of(10)
    batcher.submit(job)

    assert kinds_of(job.future.result(WAIT_S)) == [OwnVectors]
    assert not batcher.lost
    batcher.stop(WAIT_S)


def test_a_thread_that_dies_again_and_again_is_lost(fake: FakeEmbedder) -> None:
    batcher = Batcher(fake, max_batch_size=1, restart_delay_s=0.01)
    for _ in range(4):
        wait_until(lambda: batcher.alive)
        assert not batcher.lost
        batcher.submit(job_of(ENDS_THREAD))
        wait_until(lambda: not batcher.alive)

    wait_until(lambda: batcher.lost)
    assert not batcher.alive
    with pytest.raises(WorkerDeadError):
        batcher.submit(job_of(10))


def test_a_lost_device_is_not_tried_again(batcher: Batcher) -> None:
    culprit = job_of(LOSES_DEVICE)
    batcher.submit(culprit)

    assert kinds_of(culprit.future.result(WAIT_S)) == [WorkerDeadError]
    wait_until(lambda: batcher.lost)


def test_a_batcher_between_two_lives_can_be_stopped(fake: FakeEmbedder) -> None:
    batcher = Batcher(fake, max_batch_size=1, restart_delay_s=WAIT_S)
    batcher.submit(job_of(ENDS_THREAD))
    wait_until(lambda: not batcher.alive)

    batcher.stop(WAIT_S)

    assert not batcher.lost
    with pytest.raises(WorkerDeadError):
        batcher.submit(job_of(10))


def test_a_batch_that_does_not_come_back_is_a_stall_and_nobody_waits_for_it(
    batcher: Batcher, fake: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, queued = occupy(batcher, fake), job_of(10)
    batcher.submit(queued)
    assert not batcher.stalled
    assert not batcher.lost

    monkeypatch.setattr(in_flight, "_STALL_S", 0.0)
    wait_until(lambda: batcher.stalled and batcher.lost)
    batcher.fail_all()

    assert kinds_of(busy.future.result(0)) == [WorkerDeadError]
    assert kinds_of(queued.future.result(0)) == [WorkerDeadError]
    fake.gate.set()
    wait_until(lambda: not batcher.stalled)
    assert batcher.alive


def test_a_device_that_hangs_before_the_first_batch_is_a_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(FakeEmbedder, "enter_thread", lambda _: gate.wait(WAIT_S))
    batcher = Batcher(FakeEmbedder(), max_batch_size=4)
    assert not batcher.stalled

    monkeypatch.setattr(in_flight, "_STALL_S", 0.0)
    wait_until(lambda: batcher.stalled and batcher.lost)

    gate.set()
    wait_until(lambda: not batcher.stalled)
    batcher.stop(WAIT_S)


def test_stopping_finishes_what_is_queued(batcher: Batcher, fake: FakeEmbedder) -> None:
    busy = occupy(batcher, fake)
    job = job_of(*range(10, 20))
    batcher.submit(job)
    opening = threading.Timer(0.05, fake.gate.set)
    opening.start()
    batcher.stop(WAIT_S)
    opening.join()

    assert kinds_of(busy.future.result(0)) == [OwnVectors]
    assert kinds_of(job.future.result(0)) == [OwnVectors] * 10
    assert not batcher.alive


def test_what_is_left_when_the_time_to_stop_is_over_is_told_so(
    batcher: Batcher, fake: FakeEmbedder
) -> None:
    busy = occupy(batcher, fake)
    job = job_of(*range(10, 20))
    batcher.submit(job)
    batcher.stop(0.05)

    assert kinds_of(busy.future.result(0)) == [DrainingError]
    assert kinds_of(job.future.result(0)) == [DrainingError] * 10
    fake.gate.set()
    batcher.stop(WAIT_S)
    assert reds_of(fake) == [[1]]


def test_a_stopped_batcher_takes_nothing_more(batcher: Batcher) -> None:
    batcher.stop(WAIT_S)

    with pytest.raises(DrainingError):
        batcher.submit(job_of(10))


def test_the_age_of_the_queue_is_told(batcher: Batcher, fake: FakeEmbedder) -> None:
    assert batcher.oldest_age_s("image") == 0
    busy = occupy(batcher, fake)
    waiting = job_of(10)
    batcher.submit(waiting)

    assert batcher.oldest_age_s("image") > 0
    fake.gate.set()
    for job in (busy, waiting):
        job.future.result(WAIT_S)
    assert batcher.oldest_age_s("image") == 0
    assert batcher.per_second("image") > 0
    assert batcher.last_batch_age_s >= 0


def test_a_job_knows_when_it_was_started(batcher: Batcher) -> None:
    job = job_of(10)
    batcher.submit(job)
    job.future.result(WAIT_S)

    assert job.started_at is not None
    assert job.started_at >= job.queued_at


def test_many_threads_may_submit_and_cancel_at_once(batcher: Batcher) -> None:
    jobs: list[Job] = []

    def submit(seed: int) -> None:
        for number in range(50):
            job = job_of(seed, number)
            jobs.append(job)
            batcher.submit(job)
            if number % 3 == 0:
                job.future.cancel()

    threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)

    assert len(jobs) == 400
    for job in jobs:
        if job.future.cancelled():
            continue
        first, second = job.future.result(WAIT_S)
        assert isinstance(first, OwnVectors)
        assert isinstance(second, OwnVectors)
        assert first.pooled[0] == job.inputs[0][0, 0, 0]
        assert second.pooled[0] == job.inputs[1][0, 0, 0]
    assert batcher.alive
