"""Which files to embed: arguments in their order, folders walked in the order of names."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from app.bulk.image_file import read_start
from app.bulk.left_out import LeftOut, WhyLeftOut, extension_of
from app.errors import FileUnreadableError
from app.intake.formats import FORMATS
from app.intake.sniff import known_format

# What bytes that are no UTF-8 are spelled like.
_ESCAPED_BYTE = re.compile(r"\\x[89a-f][0-9a-f]")

# The first bytes that tell a format: of a HEIF they hold its brands.
_START_BYTES = 128


class FoundFiles(NamedTuple):
    """Paths to embed by the name that an output has for them; what of folders was left out."""

    paths: dict[str, str]
    left_out: LeftOut


def find_files(
    arguments: Iterable[Path], formats: frozenset[str], own: Iterable[Path]
) -> FoundFiles:
    """Return what is to be embedded, each name once; nothing of it is among the run's `own` paths.

    A file that is named is taken whatever it is. Of a folder those are taken whose extension is of
    one of the `formats`, or that have none and begin like one of them, unless the file or a folder
    on the way is hidden, or it is no file at all. Links to files are followed, links to folders
    only when named, so that no loop is walked. What cannot be listed or looked at is taken as a
    file, for its failure to be told.
    """
    extensions = tuple(ending for name in formats for ending in FORMATS[name].extensions)
    walk = _Walk(formats, extensions, frozenset(map(_absolute, own)))
    found: dict[str, str] = {}
    for argument in map(str, arguments):
        for path in map(_plain, walk.files(argument)):
            found.setdefault(_shown(path), path)
    taken = set(found.values())
    left_out = (item for item in walk.left_out.items() if item[0] not in taken)
    return FoundFiles(found, LeftOut(left_out))


class _Walk:
    """Goes through folders, and notes what it leaves out."""

    def __init__(
        self, formats: frozenset[str], extensions: tuple[str, ...], own: frozenset[str]
    ) -> None:
        self._formats = formats
        self._extensions = extensions
        self._own = own
        self.left_out: dict[str, WhyLeftOut] = {}

    def files(self, argument: str) -> Iterator[str]:
        """Go through the files of an argument, of which there is one if it is no folder."""
        left = [(argument, os.path.isdir(argument))]  # noqa: PTH112 # Path's own raises for what it cannot tell
        while left:
            path, is_folder = left.pop()
            if _absolute(path) in self._own:
                continue
            if not is_folder:
                yield path
                continue
            inside: list[tuple[str, bool]] = []
            try:
                with os.scandir(path) as entries:
                    inside.extend(self._wanted(entries))
            except OSError:
                yield path
            left += sorted(inside, reverse=True)

    def _wanted(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, bool]]:
        """Go through the paths of files and folders that are wanted, and say which are folders."""
        for entry in entries:
            is_folder = _is_own_folder(entry)
            why = self._why_left_out(entry, is_folder=is_folder)
            if why is None:
                yield entry.path, is_folder
            elif _absolute(entry.path) not in self._own:
                self.left_out[_plain(entry.path)] = why

    def _why_left_out(self, entry: os.DirEntry[str], *, is_folder: bool) -> WhyLeftOut | None:
        if entry.name.startswith("."):
            return "hidden"
        if is_folder:
            return None
        kind = _kind(entry)
        if kind == stat.S_IFDIR:
            return "link_to_folder"
        has_extension = bool(extension_of(entry.name))
        if has_extension and not entry.name.lower().endswith(self._extensions):
            return "other_format"
        if kind not in (stat.S_IFREG, None):
            return "special"
        return None if has_extension or self._begins_like_an_image(entry.path) else "other_format"

    def _begins_like_an_image(self, path: str) -> bool:
        """Tell whether a file begins like one of the formats; one that cannot be read does not."""
        try:
            start = read_start(path, _START_BYTES)
        except (OSError, FileUnreadableError):
            return False
        return b"\0" in start and known_format(start) in self._formats  # a text may begin with BM


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder itself; one that cannot be looked at is none."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _kind(entry: os.DirEntry[str]) -> int | None:
    """Return the kind of file that an entry leads to, None for one that cannot be looked at."""
    try:
        if entry.is_file(follow_symlinks=False):  # which the listing has told already
            return stat.S_IFREG
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return None


def _plain(path: str) -> str:
    """Drop what arguments have lost already, and paths in `.` have not."""
    return path.removeprefix("./")


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 # follows no links


def _shown(path: str) -> str:
    r"""Spell a path in UTF-8, in which Parquet and JSON are; other bytes become `\xNN`.

    Then each backslash is doubled, and also in a path that reads as if it had such bytes: no two
    paths are spelled alike, and all others are spelled as they are.
    """
    if path.isascii() and not _ESCAPED_BYTE.search(path):
        return path
    encoded = os.fsencode(path)
    shown = encoded.decode("utf-8", "backslashreplace")
    if not _ESCAPED_BYTE.search(shown):
        return shown
    return encoded.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
