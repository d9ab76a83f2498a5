"""An output's files: the format that its name asks for, and how they come to be there at once."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson

from app.bulk import jsonl, npy
from app.bulk.locked_folder import locked_folder
from app.bulk.row import BulkError, Origin, OutputKind, Row
from app.engine.protocol import ModelInfo


class Format(Protocol):
    """Writes rows to a file, and reads them again; both one by one."""

    def write(self, path: Path, origin: Origin, rows: Iterable[Row], /) -> None:
        """Write all rows in their order."""
        ...

    def read(self, path: Path, /) -> tuple[Origin, Iterator[Row]] | None:
        """Return the origin and the rows of what `write` wrote, or None where there are none."""
        ...


class Output:
    """The output, its manifests, and the folder beside it in which all of them are prepared."""

    def __init__(self, path: Path, kind: OutputKind) -> None:
        """Raises `BulkError` for a name that asks for no format, or one that cannot be had."""
        self._kind = kind
        self._format = _pick_format(path)
        # All is put in its place by renaming, which would replace a link and leave its target.
        self.path = path = Path(os.path.realpath(path)) if path.is_symlink() else path
        self._errors = path.with_name(path.name + ".errors.jsonl")
        self._names = npy.names_path(path) if self._format is npy else None
        self._work = path.with_name(path.name + ".partial")
        self.journal = self._work / "journal"
        if self._names and kind == "both":
            raise BulkError(f"{path}: --output both is not one array; write .parquet or .jsonl")

    @property
    def files(self) -> list[Path]:
        """All files that the command leaves: the output itself comes last."""
        return [self._errors, *([self._names] if self._names else []), self.path]

    @property
    def own(self) -> list[Path]:
        """All of that, and the folder: nothing of it is to be embedded."""
        return [*self.files, self._work]

    def require_possible(self, info: ModelInfo) -> None:
        """Raise `BulkError` for vectors that the model lacks, or that this format cannot hold."""
        if self._kind != "patches" and not info.pooled:
            raise BulkError(f"{info.model} has no pooling head; ask for --output patches")
        if self._names and self._kind == "patches" and info.naflex:
            raise BulkError(
                f"{self.path}: patch vectors of a NaFlex model are of unequal number and not one"
                " array; write .parquet or .jsonl"
            )

    @contextmanager
    def claimed(self, *, resume: bool) -> Iterator[None]:
        """Keep the place for this process; raises `BulkError` when it is taken.

        What is there already is taken over with `resume`, and never touched without.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locked_folder(self._work))
            except BlockingIOError:
                raise BulkError(f"{self.path}: another process is writing it") from None
            except OSError as error:
                raise self.unwritable(error) from None
            # Not before it is ours: another process may have put nothing into it yet.
            held.callback(_remove_if_empty, self._work)
            if not resume:
                self._require_free()
            yield

    def read(self, origin: Origin) -> Iterator[Row]:
        """Go through the vectors of an earlier run, of which there may be none.

        Raises `BulkError` for an output of another origin, or one that this command did not write.
        """
        if not self.path.exists():
            return
        try:
            if (earlier := self._format.read(self.path)) is None:
                return
            earlier_origin, rows = earlier
            origin.require_same(earlier_origin, self.path)
            yield from (row for row in rows if row.error is None)
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            raise BulkError(f"{error.filename or self.path} cannot be read: {reason}") from None
        except (EOFError, KeyError, NotImplementedError, TypeError, ValueError):
            raise BulkError(f"{self.path} was not written by this command, or is damaged") from None

    def publish(self, origin: Origin, rows: Iterable[Row]) -> None:
        """Write all files beside their places and then put each in its place, the output last."""
        with (self._work / self._errors.name).open("wb") as errors:
            self._format.write(
                self._work / self.path.name,
                origin,
                _noting_errors(rows, errors, origin.name_column),
            )
        for file in self.files:
            staged = self._work / file.name
            _reach_disk(staged)
            staged.replace(file)
        if not self._errors.stat().st_size:
            self._errors.unlink()

    def unwritable(self, error: OSError) -> BulkError:
        """Return what to say when the file system refuses."""
        reason = (error.strerror or "unknown reason").lower()
        return BulkError(f"{self.path} cannot be written: {reason}")

    def _require_free(self) -> None:
        for file in reversed(self.files):
            if file.exists():
                raise BulkError(f"{file} exists: --resume adds to what is there, or remove it")
        if self.journal.exists():
            raise BulkError(
                f"{self._work} is what an earlier run left: --resume goes on from it, or remove it"
            )


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # what is in it is for the next run
        folder.rmdir()


def _pick_format(path: Path) -> Format:
    if path.suffix == ".npy":
        return npy
    if path.suffix == ".jsonl":
        return jsonl
    if path.suffix != ".parquet":
        raise BulkError(f"{path}: the output's name ends in .parquet, .npy or .jsonl")
    try:
        from app.bulk import parquet  # pyarrow is an extra
    except ImportError:
        raise BulkError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from None
    return parquet


def _noting_errors(rows: Iterable[Row], errors: BinaryIO, name_column: str) -> Iterator[Row]:
    for row in rows:
        if row.error is not None:
            noted = {name_column: row.name, "error": row.error, "message": row.message}
            errors.write(orjson.dumps(noted, option=orjson.OPT_APPEND_NEWLINE))
        yield row


def _reach_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
