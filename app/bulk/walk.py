"""Which files to embed: arguments in their order, folders walked in the order of names."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from app.intake.formats import FORMATS


def find_files(
    arguments: Iterable[Path], formats: frozenset[str], leave_out: Iterable[Path]
) -> dict[str, str]:
    """Return the paths to embed by the name that an output has for them, each name once.

    A file that is named is taken whatever it is. Of a folder those are taken whose extension is of
    one of the `formats`, unless the file or a folder on the way is hidden. Links to files are
    followed, links to folders only when named, so that no loop is walked. What cannot be listed is
    taken as a file, for its failure to be told.
    """
    extensions = tuple(ending for name in formats for ending in FORMATS[name].extensions)
    own = {os.path.abspath(path) for path in leave_out}  # noqa: PTH100 # follows no links
    found: dict[str, str] = {}
    for argument in map(str, arguments):
        is_folder = os.path.isdir(argument)  # noqa: PTH112 # Path's own raises for what it cannot tell
        for path in _walk(argument, extensions) if is_folder else (argument,):
            if os.path.abspath(path) not in own:  # noqa: PTH100
                plain = path.removeprefix("./")  # which arguments have lost, but not what is in "."
                found.setdefault(_shown(plain), plain)
    return found


def _walk(folder: str, extensions: tuple[str, ...]) -> Iterator[str]:
    left = [(folder, True)]
    while left:
        path, is_folder = left.pop()
        if not is_folder:
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                inside = [
                    (entry.path, entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if _is_wanted(entry, extensions)
                ]
        except OSError:
            yield path
        else:
            left += sorted(inside, reverse=True)


def _is_wanted(entry: os.DirEntry[str], extensions: tuple[str, ...]) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        return not entry.is_symlink()
    return entry.name.lower().endswith(extensions)


def _shown(path: str) -> str:
    r"""Spell a path in UTF-8, in which Parquet and JSON are; other bytes become `\xNN`."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")
