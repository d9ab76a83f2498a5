"""Batches through a model that fails in every way it can."""

from collections.abc import Callable

import numpy as np
import pytest

from app.engine.forward import Forward, Outcome, OwnVectors, Wanted
from app.engine.protocol import DeviceLostError, Vectors
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


def first_red(outcome: Outcome) -> float | None:
    """Return the red of an image's first patch."""
    assert isinstance(outcome, OwnVectors)
    return None if outcome.patches is None else float(outcome.patches[0, 0])


class Answering(FakeEmbedder):
    """The fake, which gives the same vectors whatever it gets."""

    def __init__(self, vectors: Vectors) -> None:
        super().__init__()
        self._vectors = vectors

    def begin(self, *_: object) -> Callable[[], Vectors]:
        return lambda: self._vectors

    def embed_in_float32(self, *_: object) -> Vectors:
        raise OSError("there is no second opinion")


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


def test_of_a_mixed_batch_only_those_who_asked_have_patches_their_own() -> None:
    fake = FakeEmbedder()
    batch = [*images(1), *images(2, patches=True), *images(3), *images(4, 5, patches=True)]

    outcomes = Forward(fake, 8).run(batch)

    check_vectors(outcomes, 1, 2, 3, 4, 5)
    assert [batch.patches_of for batch in fake.batches] == [3]
    assert [first_red(outcome) for outcome in outcomes] == [None, 2, None, 4, 5]


def test_a_mixed_batch_with_a_culprit_is_halved_and_nobody_gets_anothers_patches() -> None:
    batch = [*images(1), *images(2, RAISES, patches=True), *images(4), *images(5, patches=True)]

    outcomes = Forward(FakeEmbedder(), 8).run(batch)

    assert isinstance(outcomes.pop(2), InternalError)
    check_vectors(outcomes, 1, 2, 4, 5)
    assert [first_red(outcome) for outcome in outcomes] == [None, 2, None, 5]


def test_of_a_mixed_batch_one_that_overflows_keeps_its_own_patches() -> None:
    again = GIVES_NAN_BUT_IN_FLOAT32
    batch = [*images(1, again), *images(3, again, patches=True)]

    outcomes = Forward(FakeEmbedder(), 4).run(batch)

    check_vectors(outcomes, 1, again, 3, again)
    assert [first_red(outcome) for outcome in outcomes] == [None, None, 3, again]


@pytest.mark.parametrize("value", [1e-30, 1e30, 3e38])
def test_a_vector_whose_square_is_no_number_above_zero_is_sound(value: float) -> None:
    """In float32 its square is 0, or infinite."""
    pooled = np.full((2, 4), value, np.float32)

    outcomes = Forward(Answering(Vectors(pooled)), 4).run(images(1, 2))

    for row, outcome in enumerate(outcomes):
        assert isinstance(outcome, OwnVectors)
        assert np.array_equal(outcome.pooled, pooled[row])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_a_vector_that_is_none_fails_alone(value: float) -> None:
    pooled = np.array([[1, 1], [value, 0], [2, 2]], np.float32)

    outcomes = Forward(Answering(Vectors(pooled)), 4).run(images(1, 2, 3))

    assert [type(outcome) for outcome in outcomes] == [OwnVectors, NonFiniteError, OwnVectors]


def test_a_lost_device_is_no_matter_of_one_image() -> None:
    with pytest.raises(DeviceLostError):
        Forward(FakeEmbedder(), 4).run(images(1, LOSES_DEVICE))
