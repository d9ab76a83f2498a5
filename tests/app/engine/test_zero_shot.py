"""Cosines, scores and averaged prompts against their formulas."""

import math

import numpy as np
import pytest

from app.engine.zero_shot import Logits, average_prompts, rank_labels

LABELS = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def test_prompts_are_normalised_averaged_and_normalised_again() -> None:
    vectors = [np.array(row, np.float32) for row in ([100, 0], [0, 0.5], [3, 4])]

    labels = average_prompts(vectors, [2, 1])

    np.testing.assert_allclose(labels, [[0.5**0.5, 0.5**0.5], [0.6, 0.8]], rtol=1e-7)


def test_prompts_that_cancel_out_have_no_cosine() -> None:
    vectors = [np.array([1, 0], np.float32), np.array([-1, 0], np.float32)]

    assert rank_labels(vectors[0], average_prompts(vectors, [2]), "cosine", None) == [(0, 0.0, 0.0)]


def test_labels_are_ranked_by_their_cosines() -> None:
    ranked = rank_labels(np.array([0, 5], np.float32), LABELS, "cosine", None)

    assert [label.place for label in ranked] == [1, 2, 0]
    assert [label.cosine for label in ranked] == pytest.approx([1, 0.8, 0])
    assert all(label.score == label.cosine for label in ranked)


def test_a_probability_is_the_sigmoid_of_a_scaled_cosine() -> None:
    ranked = rank_labels(
        np.array([0, 5], np.float32), LABELS, "sigmoid", Logits(math.log(10.0), -8.0)
    )

    expected = [1 / (1 + math.exp(8.0 - 10.0 * cosine)) for cosine in (1, 0.8, 0)]
    assert [label.score for label in ranked] == pytest.approx(expected, rel=1e-12)


def test_shares_of_softmax_are_one_together() -> None:
    logits = Logits(math.log(10.0), -8.0)
    ranked = rank_labels(np.array([0, 5], np.float32), LABELS, "softmax", logits)

    powers = [math.exp(10.0 * cosine) for cosine in (1, 0.8, 0)]
    expected = [power / sum(powers) for power in powers]
    assert [label.score for label in ranked] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
def test_extreme_logits_do_not_overflow_and_still_rank(scoring: str) -> None:
    labels = np.array([[1.0, 0.0], [0.999, 0.0], [-1.0, 0.0]])
    ranked = rank_labels(
        np.array([1, 0], np.float32),
        labels,
        scoring,  # type: ignore[arg-type]
        Logits(math.log(5000.0), 0.0),
    )

    assert [label.place for label in ranked] == [0, 1, 2]
    assert ranked[0].score == pytest.approx(1.0, abs=0.01)
    assert ranked[2].score == 0.0


def test_small_probabilities_keep_their_digits() -> None:
    (label,) = rank_labels(
        np.array([1, 0], np.float32), np.array([[-1.0, 0.0]]), "sigmoid", Logits(0.0, -99.0)
    )

    assert label.score == pytest.approx(math.exp(-100.0), rel=1e-12)
