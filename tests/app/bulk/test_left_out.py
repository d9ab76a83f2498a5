"""What was left out, in one line."""

import pytest

from app.bulk.left_out import LeftOut


def test_the_commonest_extensions_are_told_and_the_others_counted() -> None:
    counts = {"a": 9, "b": 1, "c": 8, "d": 2, "e": 7, "f": 3, "g": 3}
    names = [f"{number}.{kind}" for kind, count in counts.items() for number in range(count)]
    left_out = LeftOut([(name, "other_format") for name in names])

    assert left_out.commonest == {".a": 9, ".c": 8, ".e": 7, ".f": 3, ".g": 3, "more": 3}
    assert left_out.in_words() == (
        "33 files of other formats (.a 9, .c 8, .e 7, .f 3, .g 3, and 3 more)"
    )


def test_every_reason_is_told() -> None:
    left_out = LeftOut(
        [("IMG.HEIC", "other_format"), (".a", "hidden"), (".b", "hidden"), ("c", "link_to_folder")]
    )
    assert left_out.in_words() == (
        "1 file of another format (.heic 1), 2 hidden, 1 links to folders"
    )


@pytest.mark.parametrize(
    "name", ["a.\x1b[31m", "a.x\ny", "a." + "x" * 11, "a.\udcff", "a.\u202e", "a.x y", "a.[red]"]
)
def test_no_line_holds_a_strange_extension(name: str) -> None:
    left_out = LeftOut([(name, "other_format"), ("a.jpg2", "other_format")])
    assert left_out.in_words() == "2 files of other formats (.jpg2 1, odd ones 1)"


@pytest.mark.parametrize("name", ["a", "a.", "b.c/a", ".a", "a..."])
def test_a_name_may_have_no_extension(name: str) -> None:
    assert LeftOut([(name, "other_format")]).commonest == {"no extension": 1}
