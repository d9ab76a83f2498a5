"""Results for who reads them: a table for people, JSON lines for programs."""

import signal
import sys
from collections.abc import Iterable

import orjson

from app.bulk.row import BulkError
from app.search.run import FoundImage


def to_table(found: Iterable[FoundImage]) -> bytes:
    """Return a line for each image, under a heading, in the encoding of the terminal."""
    lines = [f"{image.rank:>4}  {image.score:>7.4f}  {_shown(image.path)}" for image in found]
    table = "\n".join(["rank    score  path", *lines, ""])
    return table.encode(sys.stdout.encoding, "backslashreplace")


def to_json_lines(found: Iterable[FoundImage]) -> bytes:
    """Return a JSON object for each image."""
    return b"".join(orjson.dumps(vars(image), option=orjson.OPT_APPEND_NEWLINE) for image in found)


def write_results(results: bytes) -> int:
    """Write to standard output and return the exit code; raises `BulkError` where it is full."""
    try:
        sys.stdout.buffer.write(results)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # who reads has had enough
        return 128 + signal.SIGPIPE
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise BulkError(f"the results cannot be written: {reason}") from None
    return 0


def _shown(path: str) -> str:
    """Spell out what a terminal would obey, or show in another order."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in path
    )
