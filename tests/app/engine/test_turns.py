"""The order among requests that wait: turns and age, place by place."""

import itertools
import random

import pytest

from app.engine.turns import Turns, places_ahead


def turns_of(**owners: int) -> Turns[str, int]:
    """Make owners with so many items each, the oldest first."""
    turns: Turns[str, int] = Turns()
    for owner, items in owners.items():
        turns.add(owner, range(items))
    return turns


def take(turns: Turns[str, int], places: int) -> str:
    """Take so many items and return their owners."""
    return "".join(turns.take()[0] for _ in range(places))


def drain(turns: Turns[str, int]) -> list[tuple[str, int]]:
    """Take all items."""
    return [turns.take() for _ in range(len(turns))]


def test_one_owner_s_items_come_in_their_order() -> None:
    assert drain(turns_of(a=3)) == [("a", 0), ("a", 1), ("a", 2)]


def test_where_all_have_one_item_it_is_first_come_first_served() -> None:
    assert take(turns_of(c=1, a=1, d=1, b=1), 4) == "cadb"


def test_places_go_by_turns_and_to_the_oldest_alternately() -> None:
    assert take(turns_of(a=9, b=2, c=2), 11) == "aabacaaabac"


def test_a_new_owner_has_a_place_within_the_next_four_beside_one_large_one() -> None:
    for taken in range(10):
        turns = turns_of(a=64)
        take(turns, taken)
        turns.add("b", [0])

        assert "b" in take(turns, 4), taken


def drawn_turns(draw: random.Random) -> Turns[str, int]:
    """Return up to twenty owners in the middle of being served."""
    sizes = [draw.choice((1, 1, 2, 8, 64)) for _ in range(draw.randint(0, 20))]
    turns = turns_of(**{f"a{number}": size for number, size in enumerate(sizes)})
    for _ in range(draw.randint(0, len(turns))):
        turns.take()
    return turns


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("own", [1, 2, 8, 64])
def test_nobody_waits_for_more_images_than_was_forecast(seed: int, own: int) -> None:
    turns = drawn_turns(random.Random(seed))  # noqa: S311 # no secret
    forecast = places_ahead(own, len(turns.owners), len(turns))
    turns.add("new", range(own))

    taken = [owner for owner, _ in drain(turns)]

    last = max(place for place, owner in enumerate(taken) if owner == "new")
    assert last + 1 - own <= forecast


@pytest.mark.parametrize("seed", range(25))
def test_who_comes_later_does_not_delay_a_single_image(seed: int) -> None:
    turns = drawn_turns(random.Random(seed))  # noqa: S311 # no secret
    forecast = places_ahead(1, len(turns.owners), len(turns))
    turns.add("new", [0])

    for place in itertools.count():
        turns.add(f"later{place}", range(8))
        if turns.take()[0] == "new":
            break

    assert place <= forecast


def test_a_large_request_has_every_second_place_beside_a_crowd_that_came_later() -> None:
    turns = turns_of(large=64)
    for number in range(100):
        turns.add(f"single{number}", [0])
    places = [turns.take()[0] for _ in range(128)]

    assert all(
        places[start : start + 8].count("large") >= 4 for start in range(0, len(places) - 8, 8)
    )
    assert "large" not in [turns.take()[0] for _ in range(len(turns))]


def test_an_owner_that_is_through_comes_back_as_a_new_one() -> None:
    turns = turns_of(a=1, b=2)
    assert take(turns, 1) == "a"
    turns.add("a", [7])

    assert turns.oldest == "b"
    assert drain(turns) == [("b", 0), ("b", 1), ("a", 7)]


def test_items_added_later_stand_behind_those_of_the_same_owner() -> None:
    turns = turns_of(a=2)
    turns.add("a", [2])

    assert [item for _, item in drain(turns)] == [0, 1, 2]


def test_who_is_discarded_is_gone_with_all_items() -> None:
    turns = turns_of(a=3, b=2, c=1)
    turns.take()
    turns.discard("a")
    turns.discard("nobody")

    assert len(turns) == 3
    assert turns.oldest == "b"
    assert sorted(drain(turns)) == [("b", 0), ("b", 1), ("c", 0)]
    assert turns.oldest is None


def test_nothing_can_be_taken_where_nobody_waits() -> None:
    turns = turns_of(a=0)
    assert len(turns) == 0
    assert turns.oldest is None
    with pytest.raises(IndexError):
        turns.take()
