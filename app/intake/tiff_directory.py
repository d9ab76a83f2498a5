"""TIFF directories: an image's tags, each with numbers or bytes, read and written anew."""

import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any, NamedTuple

from app.errors import ImageSuspiciousError
from app.intake.outline import truncated

_MAX_TAGS = 4_096
# A strip for each row, in a plane for each colour, of the tallest image that is not a strip itself.
_MAX_NUMBERS = 400_000
_BIG = 43
# How many bytes a number of each type has, and what `struct` calls it; texts and fractions have no
# part in pixels.
_INTEGERS = MappingProxyType({1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"})
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_ENTRY_BYTES = 12


class Tag(NamedTuple):
    """What a directory has for a tag: how to read a number of it, and all of its bytes."""

    code: str
    content: memoryview

    def numbers(self) -> tuple[int, ...]:
        """Return its numbers; raises `ImageSuspiciousError` for too many."""
        count = len(self.content) // struct.calcsize(self.code)
        if count > _MAX_NUMBERS:
            raise ImageSuspiciousError("a TIFF of too many parts")
        return struct.unpack(f"{self.code[0]}{count}{self.code[1]}", self.content)


class Directory(NamedTuple):
    """The integers and bytes of a directory by tag, and where the next directory is, or 0."""

    tags: Mapping[int, Tag]
    next: int

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the numbers of a tag."""
        return self.tags[tag].numbers() if tag in self.tags else default

    def number(self, tag: int, default: int) -> int:
        """Return the first number of a tag."""
        return next(iter(self.numbers(tag)), default)


class TiffReader:
    """Reads the directories of a TIFF or a BigTIFF; `order` is `<` or `>`, as `struct` has it."""

    def __init__(self, data: bytes) -> None:
        self.order = "<" if data.startswith(b"I") else ">"
        self._data = memoryview(data)
        (version,) = self._unpack("H", 2)
        self._is_big = version == _BIG
        (self.first,) = self._unpack("Q", 8) if self._is_big else self._unpack("I", 4)
        """Where the first directory is."""

    def directory(self, at: int) -> Directory:
        """Read a directory; of a tag that is there twice the first counts.

        What of its tags reaches over the file's end is not there. Raises `ImageTruncatedError` if
        itself does, `ImageSuspiciousError`.
        """
        count_format, entry_format, next_format = (
            ("Q", "HHQ8s", "Q") if self._is_big else ("H", "HHI4s", "I")
        )
        (count,) = self._unpack(count_format, at)
        if count > _MAX_TAGS:
            raise ImageSuspiciousError("a TIFF of too many tags")
        at += struct.calcsize("=" + count_format)
        tags: dict[int, Tag] = {}
        for _ in range(count):
            tag, kind, number_count, value = self._unpack(entry_format, at)
            at += struct.calcsize("=" + entry_format)
            if tag not in tags and (found := self._tag(kind, number_count, value)):
                tags[tag] = found
        is_there = at + struct.calcsize("=" + next_format) <= len(self._data)
        return Directory(tags, self._unpack(next_format, at)[0] if is_there else 0)

    def _tag(self, kind: int, count: int, value: bytes) -> Tag | None:
        if kind not in _INTEGERS or not count:
            return None
        code = self.order + _INTEGERS[kind]
        size = count * struct.calcsize(code)
        if size <= len(value):
            return Tag(code, memoryview(value)[:size])
        (start,) = struct.unpack(self.order + ("Q" if self._is_big else "I"), value)
        content = self._data[start : start + size]
        return Tag(code, content) if len(content) == size else None

    def _unpack(self, fields: str, at: int) -> tuple[Any, ...]:
        if at + struct.calcsize("=" + fields) > len(self._data):
            raise truncated("TIFF")
        return struct.unpack_from(self.order + fields, self._data, at)


def write_tiff(
    order: str,
    tags: Mapping[int, Sequence[int] | bytes],
    places: tuple[int, int],
    parts: Sequence[bytes | memoryview],
) -> bytes:
    """Write a TIFF of one directory and the parts of its image.

    `order` is that of bytes, `places` are the tags for where the parts are and how long.
    """
    lengths = list(map(len, parts))
    count = len(tags) + len(places)
    values = {tag: _coded(order, value) for tag, value in tags.items()}
    behind = 8 + 2 + _ENTRY_BYTES * count + 4
    start = behind + sum(len(value.content) for value in values.values() if len(value.content) > 4)
    start += sum(4 * len(parts) for _ in places if len(parts) > 1)
    starts = [start, *accumulate(lengths, initial=start)][1 : len(parts) + 1]
    values |= {
        tag: _Value(_LONG, len(parts), struct.pack(f"{order}{len(parts)}I", *numbers))
        for tag, numbers in zip(places, (starts, lengths), strict=True)
    }
    entries, outside = [struct.pack(order + "H", count)], []
    for tag, (kind, number_count, content) in sorted(values.items()):
        value = content.ljust(4, b"\0")
        if len(content) > 4:
            value = struct.pack(order + "I", behind)
            outside.append(content)
            behind += len(content)
        entries.append(struct.pack(order + "HHI4s", tag, kind, number_count, value))
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return b"".join([head, *entries, bytes(4), *outside, *parts])


class _Value(NamedTuple):
    """How a value is written: its type, how many numbers, their bytes."""

    kind: int
    length: int
    content: bytes


def _coded(order: str, value: Sequence[int] | bytes) -> _Value:
    if isinstance(value, bytes):
        return _Value(_UNDEFINED, len(value), value)
    kind, code = (_SHORT, "H") if max(value) < 2**16 else (_LONG, "I")
    return _Value(kind, len(value), struct.pack(f"{order}{len(value)}{code}", *value))
