"""Files of texts: which texts they have, by which ids, and what is wrong with the others."""

import os
from pathlib import Path

import pytest

from app.bulk import text_file
from app.bulk.row import BulkError
from app.bulk.text_file import opened_text_file
from app.errors import ServiceError

LIMIT = 100


def read(tmp_path: Path, name: str, data: bytes) -> list[tuple[str, int, str]]:
    """Return id, line, and the text or the code of its error, of all texts; they are read twice."""
    path = tmp_path / name
    path.write_bytes(data)
    with opened_text_file(path, LIMIT) as file:
        twice = [[(text.id, text.line, said(text.text)) for text in file.read()] for _ in range(2)]
    assert twice[0] == twice[1]
    return twice[0]


def said(text: str | ServiceError) -> str:
    return f"<{text.code}>" if isinstance(text, ServiceError) else text


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "_LINE_BYTES", 256)


def test_a_line_is_a_text_and_its_number_the_id(tmp_path: Path) -> None:
    data = "\ufeffa cat\r\n\n  \nein Bär\nx\u2028y\n" + "z" * 101 + "\nä\n"

    assert read(tmp_path, "a.txt", data.encode()[:-2] + b"\n end") == [
        ("1", 1, "a cat"),
        ("4", 4, "ein Bär"),
        ("5", 5, "x\u2028y"),
        ("6", 6, "<text_too_large>"),
        ("7", 7, "<invalid_parameter>"),  # half a character
        ("8", 8, " end"),
    ]


@pytest.mark.usefixtures("short_lines")
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize("length", [255, 256, 257, 511, 512, 513, 2000])
def test_a_line_of_any_length_fails_alone(tmp_path: Path, name: str, length: int) -> None:
    for start in (b"", b"\xef\xbb\xbf"):
        data = start + b'"' + b"x" * (length - 2) + b'"\n"next"'

        rows = read(tmp_path, name, data)

        assert [row[0] for row in rows] == ["1", "2"]
        assert rows[0][2] == "<text_too_large>"
        assert rows[1][2].strip('"') == "next"


def test_json_lines_are_objects_or_strings(tmp_path: Path) -> None:
    lines = [
        '{"id": "a", "text": "a cat", "more": 1}',
        '"a \\u00e4 dog"',
        "",
        '{"text": "a bird", "id": null}',
        '{"id": 7, "text": "a cow"}',
        '{"id": "b"}',
        '{"id": 1.5, "text": "x"}',
        '{"id": true, "text": "x"}',
        "[1]",
        '{"id": "c", "text": ',
        '"\\ud800"',
        '{"id": "e", "text": " "}',
        "[" * 100_000,
    ]

    assert read(tmp_path, "a.jsonl", "\n".join(lines).encode()) == [
        ("a", 1, "a cat"),
        ("2", 2, "a ä dog"),
        ("4", 4, "a bird"),
        ("7", 5, "a cow"),
        ("b", 6, "<invalid_parameter>"),
        ("7", 7, "<invalid_parameter>"),
        ("8", 8, "<invalid_parameter>"),
        ("9", 9, "<invalid_parameter>"),
        ("10", 10, "<invalid_json>"),
        ("11", 11, "<invalid_json>"),
        ("e", 12, "<no_texts>"),
        ("13", 13, "<invalid_json>"),
    ]


def test_a_csv_file_with_a_header_has_texts_and_ids(tmp_path: Path) -> None:
    data = (
        '\ufeffID,note, Text\r\na,1,"a ""red"" cat,\r\nasleep"\r\n\r\n,2,a dog\r\nb,3\r\nc,4,\r\n'
    )

    assert read(tmp_path, "a.CSV", data.encode()) == [
        ("a", 2, 'a "red" cat,\r\nasleep'),
        ("5", 5, "a dog"),
        ("b", 6, "<invalid_parameter>"),
        ("c", 7, "<no_texts>"),
    ]


def test_a_csv_file_without_header_has_its_texts_first(tmp_path: Path) -> None:
    long = b"y" * 200_000  # more than Python's reader takes by itself

    rows = read(tmp_path, "a.csv", b"a cat,1\n" + long + b",2\n")

    assert rows == [("1", 1, "a cat"), ("2", 2, "<text_too_large>")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'text\n"a cat\na dog\n', "line 2 is no CSV"),
        (b"id,caption\na,a cat\n", "must name a column text"),
        (b"id;text\na;red\n", "separated by commas"),
        (b"\xef\xbb\xbfText ; id\nred;a\n", "separated by commas"),
        (b"id\ttext\na\tred\n", "separated by commas"),
        (b"text\na c\xffat\n", "line 2 is not UTF-8"),
        (b"text\n" + b"x" * 300, "line 2 has more than 256 bytes"),
        ("text\na cat".encode("utf-16"), "is in UTF-16: save it as UTF-8"),
    ],
)
@pytest.mark.usefixtures("short_lines")
def test_a_csv_file_whose_records_cannot_be_told_apart_is_refused(
    tmp_path: Path, data: bytes, said: str
) -> None:
    with pytest.raises(BulkError, match=said):
        read(tmp_path, "a.csv", data)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.txt", "no such file or directory"),
        ("folder.txt", "is a directory"),
        ("pipe.txt", "not a regular file; texts are read twice"),
        ("-", "ends in .txt, .csv or .jsonl"),
    ],
)
def test_what_is_no_file_of_texts_is_told(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")

    with pytest.raises(BulkError, match=said), opened_text_file(tmp_path / name, LIMIT):
        pass
