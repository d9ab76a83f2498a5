"""A file of texts, read one by one: lines, CSV or JSON lines."""

import codecs
import csv
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

import orjson

from app.bulk.image_file import open_regular_file
from app.bulk.row import BulkError
from app.errors import (
    FileUnreadableError,
    InvalidJsonError,
    InvalidParameterError,
    NoTextsError,
    ServiceError,
    TextTooLargeError,
)

# The longest text that can be allowed, 1 MiB, fits with room, also when JSON escapes all of it.
_LINE_BYTES = 16 * 2**20


class FileText(NamedTuple):
    """A text, or what is wrong with it; where there is no id, it is the line, counted from 1."""

    id: str
    line: int
    text: str | ServiceError


class _Line(NamedTuple):
    """A line with its end, or the beginning of one that is too long."""

    number: int
    data: bytes
    too_long: bool


class TextFile:
    """The texts of an open file."""

    def __init__(self, path: Path, file: BinaryIO, max_text_bytes: int) -> None:
        self._path = path
        self._file = file
        self._read = _FORMATS[path.suffix.lower()]
        self._max_text_bytes = max_text_bytes

    def read(self) -> Iterator[FileText]:
        """Go through all texts from the first on; raises `BulkError` for what cannot be read."""
        self._file.seek(0)
        try:
            for found in self._read(_lines(self._file)):
                yield found._replace(text=self._checked(found.text))
        except _UnreadableLineError as error:
            raise BulkError(f"{self._path}: {error}") from None
        except OSError as error:
            raise _unreadable(self._path, error) from None

    def _checked(self, text: str | ServiceError) -> str | ServiceError:
        if isinstance(text, ServiceError):
            return text
        if not text.strip():
            return NoTextsError("the text is empty")
        if len(text.encode()) > self._max_text_bytes:
            return TextTooLargeError(
                f"the text has more than {self._max_text_bytes} bytes (SIGLIP_MAX_TEXT_BYTES)"
            )
        return text


@contextmanager
def opened_text_file(path: Path, max_text_bytes: int) -> Iterator[TextFile]:
    """Open a file for the block; raises `BulkError` for one that cannot be read."""
    if path.suffix.lower() not in _FORMATS:
        raise BulkError(f"{path}: the name of a file of texts ends in .txt, .csv or .jsonl")
    try:
        file = open_regular_file(path)
    except FileUnreadableError as error:
        raise BulkError(f"{path}: {error.message}; texts are read twice") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    with file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise BulkError(f"{path} is in UTF-16: save it as UTF-8")
        yield TextFile(path, file, max_text_bytes)


class _UnreadableLineError(Exception):
    """A line after which nothing can be told apart."""


def _lines(file: BinaryIO) -> Iterator[_Line]:
    """Go through lines, of which no more is in memory than may be."""
    number = 0
    while data := file.readline(_LINE_BYTES):
        number += 1
        rest = data
        while len(rest) == _LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(_LINE_BYTES)
        too_long = rest is not data
        if number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        yield _Line(number, data, too_long)


def _read_lines(lines: Iterator[_Line]) -> Iterator[FileText]:
    for line in lines:
        if line.data.strip():
            yield FileText(str(line.number), line.number, _decode(line))


def _read_json_lines(lines: Iterator[_Line]) -> Iterator[FileText]:
    for line in lines:
        if line.data.strip():
            text_id, text = _parse_json(_decode(line))
            yield FileText(str(line.number) if text_id is None else text_id, line.number, text)


def _parse_json(line: str | ServiceError) -> tuple[str | None, str | ServiceError]:
    """Return the id, if there is one, and the text."""
    if isinstance(line, ServiceError):
        return None, line
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None, InvalidJsonError("the line is not JSON")
    if isinstance(value, str):
        return None, value
    if not isinstance(value, dict):
        return None, InvalidParameterError("the line is neither a text nor an object with a text")
    text_id, text = value.get("id"), value.get("text")
    if type(text_id) not in (str, int, type(None)):
        return None, InvalidParameterError("id is neither a string nor a whole number")
    if not isinstance(text, str):
        text = InvalidParameterError("text is not a string")
    return None if text_id is None else str(text_id), text


def _read_csv(lines: Iterator[_Line]) -> Iterator[FileText]:
    """Go through the records of a CSV file with or without a header that names a column `text`."""
    csv.field_size_limit(_LINE_BYTES)
    reader = csv.reader(map(_decode_for_csv, lines), strict=True)
    text_column, id_column = 0, -1
    first, number = True, 1
    try:
        for record in reader:
            names = [name.strip().lower() for name in record]
            if first and "text" in names:
                text_column = names.index("text")
                id_column = names.index("id") if "id" in names else -1
            elif first and len(names) == 1 and "text" in re.split(r"\s*[;\t]\s*", names[0]):
                raise _UnreadableLineError("columns are separated by commas, not by ; or tabs")
            elif first and "id" in names:
                raise _UnreadableLineError("a header that names id must name a column text too")
            elif record:
                text_id = record[id_column] if 0 <= id_column < len(record) else ""
                missing = InvalidParameterError("the line has no text: it has too few columns")
                text = record[text_column] if text_column < len(record) else missing
                yield FileText(text_id or str(number), number, text)
            first, number = first and not record, reader.line_num + 1
    except csv.Error as error:
        raise _UnreadableLineError(f"line {number} is no CSV: {error}") from None


def _decode(line: _Line) -> str | ServiceError:
    if line.too_long:
        return TextTooLargeError(f"the line has more than {_LINE_BYTES} bytes")
    try:
        return line.data.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        return InvalidParameterError("the line is not UTF-8")


def _decode_for_csv(line: _Line) -> str:
    if line.too_long:
        raise _UnreadableLineError(f"line {line.number} has more than {_LINE_BYTES} bytes")
    try:
        return line.data.decode()
    except UnicodeDecodeError:
        raise _UnreadableLineError(f"line {line.number} is not UTF-8") from None


def _unreadable(path: Path, error: OSError) -> BulkError:
    return BulkError(f"{path}: {(error.strerror or 'unknown reason').lower()}")


_FORMATS: Mapping[str, Callable[[Iterator[_Line]], Iterator[FileText]]] = MappingProxyType(
    {".txt": _read_lines, ".csv": _read_csv, ".jsonl": _read_json_lines}
)
