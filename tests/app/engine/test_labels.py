"""Sets of labels that are remembered: which, and how many."""

import numpy as np
import pytest

from app.engine.labels import LabelVectors, RecentLabels, label_key
from app.engine.texts import EmbeddedText

CAT = EmbeddedText(np.array([3, 4], np.float32), tokens=2, truncated=False)
DOG = EmbeddedText(np.array([0, 5], np.float32), tokens=7, truncated=True)


def find(recent: RecentLabels, prompts: list[str], counts: list[int]) -> LabelVectors | None:
    return recent.find(label_key(prompts, counts))


def keep(
    recent: RecentLabels, prompts: list[str], counts: list[int], embedded: list[EmbeddedText]
) -> LabelVectors:
    return recent.keep(label_key(prompts, counts), counts, embedded)


def test_a_set_is_averaged_once_and_found_again() -> None:
    recent = RecentLabels()
    assert find(recent, ["cat", "dog"], [1, 1]) is None
    kept = keep(recent, ["cat", "dog"], [1, 1], [CAT, DOG])

    assert find(recent, ["cat", "dog"], [1, 1]) is kept
    assert kept.vectors == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))
    assert (kept.tokens, kept.truncated) == (9, True)


@pytest.mark.parametrize(
    ("prompts", "counts"),
    [
        (["dog", "cat"], [1, 1]),
        (["cat", "dog"], [2]),
        (["cat"], [1]),
        (["catdog", ""], [1, 1]),
        (['cat","dog', ""], [1, 1]),
    ],
)
def test_another_set_is_not_taken_for_it(prompts: list[str], counts: list[int]) -> None:
    recent = RecentLabels()
    keep(recent, ["cat", "dog"], [1, 1], [CAT, DOG])

    assert find(recent, prompts, counts) is None


def test_what_is_remembered_is_what_was_asked_for_last() -> None:
    recent = RecentLabels()
    large = [str(index) for index in range(1_000)]
    for name in ("first", "second"):
        keep(recent, [name, *large[1:]], [1] * 1_000, [CAT] * 1_000)
    assert find(recent, ["first", *large[1:]], [1] * 1_000) is not None
    keep(recent, large, [1] * 1_000, [CAT] * 1_000)

    assert find(recent, ["first", *large[1:]], [1] * 1_000) is not None
    assert find(recent, ["second", *large[1:]], [1] * 1_000) is None


def test_sets_that_come_twice_at_once_count_once() -> None:
    recent = RecentLabels()
    keep(recent, ["dog"], [1], [DOG])
    for _ in range(5):
        keep(recent, ["cat"] * 1_000, [1] * 1_000, [CAT] * 1_000)

    assert find(recent, ["dog"], [1]) is not None
