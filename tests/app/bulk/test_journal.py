"""The journal: what a process wrote is there for the next one, whatever ended it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.bulk.journal import opened_journal, start_journal
from app.bulk.row import BulkError, Origin, Row

ORIGIN = Origin("m", None, "m:0123456789ab", "both", normalized=True, dim=3)


def row(path: str, first: float = 1) -> Row:
    vector = np.array([first, 2, 0.1], np.float32)
    patches = np.stack([vector, 2 * vector])
    return Row(path, "abc", 30, 20, (1, 2), vector, patches)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    start_journal(tmp_path / "journal", ORIGIN, [row("old", 7)])
    return tmp_path / "journal"


def same(one: Row, other: Row) -> bool:
    return repr(one) == repr(other)


def open_and_close(path: Path, origin: Origin) -> None:
    with opened_journal(path, origin):
        pass


def test_rows_come_back_bit_by_bit_in_any_order(path: Path) -> None:
    with opened_journal(path, ORIGIN) as journal:
        journal.append(row("b", 2))
        journal.append(Row("c", error="image_truncated", message="it ends early"))
        read_at_once = journal.read("b")
    with opened_journal(path, ORIGIN) as journal:
        assert list(journal) == ["old", "b", "c"]
        assert same(journal.read("c"), Row("c", error="image_truncated", message="it ends early"))
        assert same(journal.read("b"), row("b", 2))
        assert same(journal.read("old"), row("old", 7))
        assert [journal.is_done(name) for name in ("old", "b", "c", "d")] == [
            True,
            True,
            False,
            False,
        ]
    assert same(read_at_once, row("b", 2))


def test_the_latest_row_of_a_path_counts(path: Path) -> None:
    with opened_journal(path, ORIGIN) as journal:
        journal.append(Row("old", error="internal"))
        assert not journal.is_done("old")
        journal.append(row("old", 9))
    with opened_journal(path, ORIGIN) as journal:
        assert journal.is_done("old")
        assert same(journal.read("old"), row("old", 9))


def test_wherever_a_line_was_cut_off_the_rows_before_are_there_and_new_ones_can_follow(
    path: Path,
) -> None:
    before = len(path.read_bytes())
    with opened_journal(path, ORIGIN) as journal:
        journal.append(row("b", 2))
    whole = path.read_bytes()

    for end in range(before, len(whole)):
        path.write_bytes(whole[:end])
        with opened_journal(path, ORIGIN) as journal:
            assert list(journal) == ["old"]
            journal.append(row("c", 3))
        with opened_journal(path, ORIGIN) as journal:
            assert list(journal) == ["old", "c"]
            assert same(journal.read("c"), row("c", 3))


def test_a_journal_that_could_not_be_begun_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> object:
        yield row("a")
        raise BulkError("no more")

    with pytest.raises(BulkError):
        start_journal(tmp_path / "journal", ORIGIN, rows())  # type: ignore[arg-type]

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other",
    [
        replace(ORIGIN, space="m:ba9876543210"),
        replace(ORIGIN, output="pooled"),
        replace(ORIGIN, normalized=False),
    ],
)
def test_a_journal_of_another_origin_is_refused(path: Path, other: Origin) -> None:
    with pytest.raises(BulkError):
        open_and_close(path, other)


def test_the_name_of_a_space_is_for_people(path: Path) -> None:
    with opened_journal(path, replace(ORIGIN, model="n", space="n:0123456789ab")) as journal:
        assert "old" in journal


@pytest.mark.parametrize("head", [b"", b"{}\n", b"[1]\n", b"nonsense\n"])
def test_a_journal_without_its_first_line_is_refused(path: Path, head: bytes) -> None:
    path.write_bytes(head)

    with pytest.raises(BulkError, match="damaged"):
        open_and_close(path, ORIGIN)


@pytest.mark.parametrize("line", [b"null\n", b"{}\n", b'{"path": "a"\n'])
def test_a_journal_with_a_broken_line_is_refused_and_left_alone(path: Path, line: bytes) -> None:
    content = path.read_bytes() + line + path.read_bytes().splitlines(keepends=True)[1]
    path.write_bytes(content)

    with pytest.raises(BulkError, match="damaged"):
        open_and_close(path, ORIGIN)
    assert path.read_bytes() == content
