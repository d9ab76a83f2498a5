"""Who is let in: the limit from rate and target wait, and what a refusal says."""

import threading

import pytest

from app.engine.admission import Admission
from app.errors import QueueFullError

PATIENT_S = 60.0


def admission(rate: float, *, least_images: int = 4, queue_images: int | None = None) -> Admission:
    """Make an admission with a constant rate."""
    return Admission(lambda: rate, least_images=least_images, queue_images=queue_images)


def refusal(admission: Admission, timeout_s: float = PATIENT_S) -> QueueFullError:
    """Return the error of a refused image."""
    with pytest.raises(QueueFullError) as refused:
        admission.admit(1, timeout_s)
    return refused.value


@pytest.mark.parametrize(
    ("rate", "limit"),
    [(0.0, 64), (0.1, 4), (10.0, 30), (10.1, 31), (1500.0, 4096)],
)
def test_the_limit_is_three_seconds_of_work_within_bounds(rate: float, limit: int) -> None:
    assert admission(rate).limit == limit


def test_a_given_number_is_the_limit() -> None:
    assert admission(10.0, queue_images=7).limit == 7


def test_images_are_let_in_up_to_the_limit_and_again_when_others_left() -> None:
    door = admission(2.0)
    for _ in range(6):
        door.admit(1, PATIENT_S)
    refusal(door)
    door.release()
    door.admit(1, PATIENT_S)
    refusal(door)


def test_a_large_request_is_let_in_where_one_image_would_be() -> None:
    door = admission(2.0)
    door.admit(5, PATIENT_S)

    door.admit(64, PATIENT_S)

    assert door.images == 69
    refusal(door)


def test_who_cannot_wait_as_long_is_refused_at_once() -> None:
    door = admission(10.0)
    door.admit(20, PATIENT_S)

    refusal(door, timeout_s=1.9)
    door.admit(1, timeout_s=2.1)


@pytest.mark.parametrize(("images", "soonest", "latest"), [(4, 1, 2), (20, 10, 11), (900, 30, 30)])
def test_a_refusal_says_when_the_queue_is_worked_off(
    images: int, soonest: int, latest: int
) -> None:
    door = admission(2.0 if images > 4 else 1000.0, queue_images=4)
    door.admit(images, PATIENT_S)

    told = {refusal(door).retry_after_s for _ in range(50)}

    assert told <= set(range(soonest, latest + 1))


def test_permits_are_exact_under_many_threads() -> None:
    door = admission(0.0, queue_images=10)
    admitted: list[int] = []

    def come_and_go() -> None:
        for _ in range(500):
            try:
                door.admit(1, PATIENT_S)
            except QueueFullError:
                continue
            admitted.append(door.images)
            door.release()

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert door.images == 0
    assert admitted
    assert max(admitted) <= 10
