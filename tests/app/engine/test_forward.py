"""Batches through a model that fails in every way it can."""

import numpy as np
import pytest

from app.engine.forward import Forward, Outcome, OwnVectors, Wanted
from app.engine.protocol import DeviceLostError
from app.errors import InternalError, NonFiniteError, OutOfMemoryError
from tests.app.fake_embedder import (
    FAILS_TO_BEGIN,
    GIVES_NAN,
    GIVES_NAN_BUT_IN_FLOAT32,
    LOSES_DEVICE,
    RAISES,
    SIDE,
    FakeEmbedder,
    expected_pooled,
)


def images(*reds: int, patches: bool = False) -> list[Wanted]:
    """Make one image of each shade of red."""
    return [Wanted(np.full((SIDE, SIDE, 3), (red, 0, 0), np.uint8), patches) for red in reds]


def sizes_of(fake: FakeEmbedder) -> list[int]:
    """Return the sizes of all batches that were tried."""
    return [len(batch.colours) for batch in fake.batches]


def check_vectors(outcomes: list[Outcome], *reds: int) -> None:
    """Check that every image has its own vector."""
    for outcome, red in zip(outcomes, reds, strict=True):
        assert isinstance(outcome, OwnVectors)
        assert outcome.pooled.tolist() == expected_pooled((red, 0, 0))


def test_a_batch_too_large_for_the_device_is_halved_and_the_size_remembered() -> None:
    fake = FakeEmbedder(memory_images=3)
    forward = Forward(fake, 8)

    check_vectors(forward.run(images(*range(8))), *range(8))

    assert sizes_of(fake) == [8, 4, 2, 2, 4, 2, 2]
    assert forward.batch_limit == 2


def test_of_two_batches_that_do_not_fit_together_the_second_is_halved_after_the_first() -> None:
    fake = FakeEmbedder(memory_images=5)
    forward = Forward(fake, 4)

    first, second = forward.begin(images(*range(4))), forward.begin(images(*range(4, 8)))

    assert sizes_of(fake) == [4]  # the second could not begin
    check_vectors(first(), *range(4))
    check_vectors(second(), *range(4, 8))
    assert sizes_of(fake) == [4, 4, 2, 2]
    assert forward.batch_limit == 2


@pytest.mark.parametrize("fault", [FAILS_TO_BEGIN, RAISES])
def test_a_batch_that_fails_is_dealt_with_when_it_is_waited_for(fault: int) -> None:
    forward = Forward(FakeEmbedder(), 4)

    outcomes = forward.begin(images(1, fault, 3))()

    check_vectors([outcomes[0], outcomes[2]], 1, 3)
    assert isinstance(outcomes[1], InternalError)


def test_after_a_while_a_larger_batch_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("app.engine.forward.time.monotonic", lambda: now)
    fake = FakeEmbedder(memory_images=2)
    forward = Forward(fake, 8)
    forward.run(images(*range(8)))

    limits = []
    for seconds in (299, 301, 302, 602, 903, 1300):
        now = 1000.0 + seconds
        limits.append(forward.batch_limit)

    assert limits == [2, 4, 4, 8, 8, 8]


def test_an_image_too_large_for_the_device_by_itself_is_told_so() -> None:
    fake = FakeEmbedder(memory_images=0)
    forward = Forward(fake, 2)

    outcomes = forward.run(images(1, 2))

    assert [type(outcome) for outcome in outcomes] == [OutOfMemoryError] * 2
    assert forward.batch_limit == 1


def test_a_vector_that_overflows_is_computed_again_in_float32() -> None:
    fake = FakeEmbedder()

    outcomes = Forward(fake, 4).run(images(1, GIVES_NAN_BUT_IN_FLOAT32, 3))

    check_vectors(outcomes, 1, GIVES_NAN_BUT_IN_FLOAT32, 3)


def test_only_what_stays_not_finite_in_float32_fails() -> None:
    outcomes = Forward(FakeEmbedder(), 4).run(images(1, GIVES_NAN, GIVES_NAN_BUT_IN_FLOAT32))

    check_vectors([outcomes[0], outcomes[2]], 1, GIVES_NAN_BUT_IN_FLOAT32)
    assert isinstance(outcomes[1], NonFiniteError)


def test_without_a_second_try_the_first_outcome_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeEmbedder()

    def fail(*_: object) -> None:
        raise OSError("the checkpoint is gone")

    monkeypatch.setattr(fake, "embed_in_float32", fail)

    outcomes = Forward(fake, 4).run(images(1, GIVES_NAN))

    check_vectors(outcomes[:1], 1)
    assert isinstance(outcomes[1], NonFiniteError)


def test_a_lost_device_is_no_matter_of_one_image() -> None:
    with pytest.raises(DeviceLostError):
        Forward(FakeEmbedder(), 4).run(images(1, LOSES_DEVICE))
