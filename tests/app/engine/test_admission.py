"""Who is let in: the limit from rate and target wait, and what a refusal says."""

import threading

import pytest

from app.engine.admission import Admission, Permits
from app.errors import QueueFullError

PATIENT_S = 60.0


def admission(rate: float, *, least_images: int = 4, queue_images: int | None = None) -> Admission:
    """Make an admission with a constant rate."""
    return Admission(lambda: rate, least=least_images, fixed=queue_images)


def refusal(admission: Admission, images: int = 1, timeout_s: float = PATIENT_S) -> QueueFullError:
    """Return the error of a refused request."""
    with pytest.raises(QueueFullError) as refused:
        admission.admit(images, timeout_s)
    return refused.value


@pytest.mark.parametrize(
    ("rate", "limit"),
    [(0.0, 64), (0.1, 4), (10.0, 30), (10.1, 31), (1500.0, 4096)],
)
def test_the_limit_is_three_seconds_of_work_within_bounds(rate: float, limit: int) -> None:
    assert admission(rate).limit == limit


def test_a_refusal_says_how_to_get_in() -> None:
    door = admission(2.0, queue_images=1)
    fill(door, 1)

    said = refusal(door).message

    assert "many images in one request" in said
    assert "few requests at a time" in said
    assert "Retry-After" in said


def test_a_given_number_is_the_limit() -> None:
    assert admission(10.0, queue_images=7).limit == 7


def fill(admission: Admission, *requests: int) -> list[Permits]:
    """Let in requests of so many images."""
    return [admission.admit(images, PATIENT_S) for images in requests]


def test_images_are_let_in_up_to_the_limit_and_again_when_others_left() -> None:
    door = admission(2.0)
    first, *_ = fill(door, *[1] * 6)
    refusal(door)
    first.release(0)
    fill(door, 1)
    refusal(door)


def test_a_large_request_is_let_in_where_one_image_would_be() -> None:
    door = admission(2.0)
    fill(door, *[1] * 5)

    fill(door, 64)

    assert door.admitted == 69
    refusal(door)


def test_beside_one_that_fills_the_queue_there_is_room_for_those_whose_turn_comes_sooner() -> None:
    door = admission(10.0)
    fill(door, 64)

    refusal(door, 10)  # its last turn comes after 30 of the 64
    fill(door, 9)
    fill(door, *[1] * 13)

    assert door.admitted == 64 + 9 + 13
    refusal(door)  # 31 before it: with 15 others, 15 turns and 16 places of the oldest


def test_a_request_in_parts_counts_until_its_last_image_is_through() -> None:
    door = admission(10.0)
    large, *_ = fill(door, 64, *[1] * 14)
    for index in range(63):
        large.release(index)
    fill(door, *[1] * 15)
    refusal(door)

    large.release(63)
    fill(door, 1)


def test_a_request_that_is_through_has_no_more_turns() -> None:
    door = admission(10.0)
    for permits in fill(door, *[1] * 20):
        permits.release(0)
    fill(door, 64)

    fill(door, *[1] * 14)
    refusal(door)


def test_small_requests_cannot_add_up_without_bound() -> None:
    door = admission(2000.0)
    fill(door, *[64] * 64)

    assert door.admitted == 4096
    refusal(door)


def test_a_permit_is_given_back_once() -> None:
    door = admission(10.0)
    permits = door.admit(3, PATIENT_S)
    for index in (0, 0, 2, 0, 2):
        permits.release(index)

    assert door.admitted == 1
    permits.release(1)
    assert door.admitted == 0


def test_who_cannot_wait_as_long_is_refused_at_once() -> None:
    door = admission(10.0)
    fill(door, *[1] * 20)

    refusal(door, timeout_s=1.9)
    door.admit(1, timeout_s=2.1)


def test_who_comes_beside_a_large_request_need_not_have_the_patience_for_all_of_it() -> None:
    door = admission(10.0)
    fill(door, 64)

    refusal(door, timeout_s=0.2)
    door.admit(1, timeout_s=0.4)
    refusal(door, 8, timeout_s=2.0)


def test_before_the_body_is_read_a_request_may_be_of_one_image() -> None:
    door = admission(10.0)
    fill(door, 64)
    door.require_room(PATIENT_S)
    fill(door, *[1] * 14)

    with pytest.raises(QueueFullError):
        door.require_room(PATIENT_S)


@pytest.mark.parametrize(
    ("rate", "waiting", "images", "timeout_s", "soonest", "latest"),
    [
        (10.0, [1] * 30, 1, PATIENT_S, 1, 2),  # one has to go
        (10.0, [1] * 29 + [64], 1, PATIENT_S, 4, 5),  # 61 ahead, 29 are not too many
        (10.0, [64], 64, PATIENT_S, 4, 5),  # 64 ahead, 29 are not too many
        (10.0, [64], 10, PATIENT_S, 1, 2),  # 30 ahead
        (10.0, [64], 8, 0.4, 3, 3),  # 24 ahead, and it can wait for 4
        (1.0, [64], 64, PATIENT_S, 30, 30),
        (0.0, [64], 64, PATIENT_S, 1, 1),
    ],
)
def test_a_refusal_says_when_there_will_be_room_for_this_request(
    rate: float, waiting: list[int], images: int, timeout_s: float, soonest: int, latest: int
) -> None:
    door = admission(rate)
    fill(door, *waiting)

    told = {refusal(door, images, timeout_s).retry_after_s for _ in range(50)}

    assert told <= set(range(soonest, latest + 1))


def test_permits_are_exact_under_many_threads() -> None:
    door = admission(0.0, queue_images=10)
    admitted: list[int] = []

    def come_and_go() -> None:
        for _ in range(500):
            try:
                permits = door.admit(2, PATIENT_S)
            except QueueFullError:
                continue
            admitted.append(door.admitted)
            permits.release(0)
            permits.release(1)

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert door.admitted == 0
    assert admitted
    assert max(admitted) <= 11, "the last with room may go over it"
