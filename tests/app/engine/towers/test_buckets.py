"""Which sizes things are made for, and which of them a batch takes."""

import pytest

from app.engine.towers.buckets import bucket_sizes, pick_bucket


@pytest.mark.parametrize(
    ("max_batch_size", "buckets"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (11, (1, 2, 4, 8, 11))],
)
def test_buckets_are_powers_of_two_and_the_largest_batch(
    max_batch_size: int, buckets: tuple[int, ...]
) -> None:
    assert bucket_sizes(max_batch_size) == buckets


@pytest.mark.parametrize("max_batch_size", [1, 2, 8, 11])
def test_a_batch_takes_the_least_bucket_that_holds_it(max_batch_size: int) -> None:
    sizes = bucket_sizes(max_batch_size)
    for count in range(1, max_batch_size + 1):
        assert pick_bucket(count, sizes) == min(size for size in sizes if size >= count)


def test_a_batch_beyond_the_largest_bucket_is_an_error() -> None:
    with pytest.raises(ValueError, match="9"):
        pick_bucket(9, bucket_sizes(8))
