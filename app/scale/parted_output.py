"""The output of a run on Ray: a folder on whatever pyarrow can write to, and how full it is."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
from pyarrow import fs

from app.bulk.locked_folder import locked_folder
from app.bulk.row import BulkError, Origin
from app.scale.stored_file import is_uri


class PartedOutput:
    """The folder of the output, on whatever pyarrow can write to, and what Ray notes in it."""

    def __init__(self, output: str) -> None:
        place = output if is_uri(output) else str(Path(output).absolute())
        self.filesystem, self.folder = fs.FileSystem.from_uri(place)
        # Whoever reads the folder passes over what begins like this.
        self.manifest = f"{self.folder}/_run/manifest"
        self.checkpoint = f"{self.folder}/_run/checkpoint"
        self._origin = f"{self.folder}/_run/origin.json"

    def parts(self) -> list[str]:
        """Return the finished files."""
        selector = fs.FileSelector(self.folder, allow_not_found=True)
        return [
            one.path
            for one in self.filesystem.get_file_info(selector)
            if one.type == fs.FileType.File and one.path.endswith(".parquet")
        ]

    @contextmanager
    def claimed(self, *, resume: bool) -> Iterator[None]:
        """Keep a local folder for this process; of a store none can be kept.

        Raises `BulkError` when it is taken, and for what may not be added to.
        """
        with ExitStack() as held:
            if isinstance(self.filesystem, fs.LocalFileSystem):
                self._lock(Path(self.folder), held)
            self._require_free(resume=resume)
            yield

    def _lock(self, folder: Path, held: ExitStack) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            raise BulkError(f"{folder} cannot be written: {reason}") from None
        try:
            held.enter_context(locked_folder(folder))
        except BlockingIOError:
            raise BulkError(f"{folder}: another process is writing it") from None
        except OSError:
            pass  # what the machines of a cluster share is often mounted without locks

    def _require_free(self, *, resume: bool) -> None:
        """Raise `BulkError` for what may not be added to."""
        if self._is_begun():
            if not resume:
                raise BulkError(f"{self.folder} exists: --resume adds what is missing")
        elif self.parts():
            raise BulkError(f"{self.folder} has files that this command did not write")

    def claim(self, origin: Origin) -> None:
        """Begin, or go on with, vectors of one origin; raises `BulkError` for those of another."""
        if self._is_begun():
            origin.require_same(self._read_origin(), Path(self.folder))
            return
        self.filesystem.create_dir(f"{self.folder}/_run")
        new = f"{self._origin}.new"
        with self.filesystem.open_output_stream(new) as file:
            file.write(json.dumps(origin.values()).encode())
        self.filesystem.move(new, self._origin)  # it is there whole or not at all

    def _read_origin(self) -> Origin:
        try:
            with self.filesystem.open_input_file(self._origin) as file:
                return Origin.from_values(json.loads(file.read()))
        except (KeyError, TypeError, ValueError):
            raise BulkError(f"{self._origin} is damaged") from None

    def _is_begun(self) -> bool:
        info = self.filesystem.get_file_info(self._origin)
        return bool(info.type == fs.FileType.File)


class RowCount:
    """How many rows the finished files have, and how many of them are errors."""

    def __init__(self, output: PartedOutput) -> None:
        self._output = output
        self._parts: dict[str, tuple[int, int]] = {}

    @property
    def done(self) -> int:
        """All rows."""
        return sum(rows for rows, _ in self._parts.values())

    @property
    def failed(self) -> int:
        """Those with an error."""
        return sum(failed for _, failed in self._parts.values())

    def count(self) -> None:
        """Look at the files that are new."""
        listed = self._output.parts()
        self._parts = {part: self._parts[part] for part in listed if part in self._parts}
        for part in listed:
            if part not in self._parts:
                with suppress(OSError, ValueError):  # it is being written
                    self._parts[part] = _count_part(part, self._output.filesystem)


def _count_part(part: str, filesystem: fs.FileSystem) -> tuple[int, int]:
    with pq.ParquetFile(part, filesystem=filesystem) as file:
        errors = file.read(columns=["error"]).column(0)
    return len(errors), len(errors) - int(errors.null_count)
