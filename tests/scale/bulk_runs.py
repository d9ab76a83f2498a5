"""`siglip-embed embed --ray` as a process, and what it leaves."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.scale.replicas import REPOSITORY, WAIT_S, command_of, descendants, kill

_ONE_WORKER = ("--workers", "1", "--cpus-per-worker", "1", "--rows-per-file", "8")


class BulkRun:
    """A run that has been started."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process = process
        self.output = output

    @property
    def parts(self) -> list[Path]:
        """The files that it has written, perhaps not to their end."""
        return sorted(self.output.glob("*.parquet"))

    def wait_for_parts(self, count: int) -> None:
        """Wait until there are so many."""
        self._wait(lambda: len(self.parts) >= count, f"{count} files")

    def kill(self) -> None:
        """End the command, and with it what it started, as a machine that fails does."""
        started = descendants(self.process.pid)
        for pid in (self.process.pid, *started):
            kill(pid)
        self.process.wait(WAIT_S)

    def kill_workers(self) -> int:
        """End the processes that hold the model, and return how many they were."""
        workers = [
            pid for pid in descendants(self.process.pid) if "ImageEmbedder" in command_of(pid)
        ]
        for pid in workers:
            kill(pid)
        return len(workers)

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and all that was said."""
        said, _ = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said

    def _wait(self, look: Callable[[], bool], what: str) -> None:
        give_up_at = time.monotonic() + WAIT_S
        while not look():
            assert self.process.poll() is None, f"it ended before: {what}"
            assert time.monotonic() < give_up_at, f"never: {what}"
            time.sleep(0.02)


@contextmanager
def started_on_ray(checkpoint: Path, output: Path, *arguments: str) -> Iterator[BulkRun]:
    """Start a run with one worker; whatever is left of it at the block's end is killed."""
    command = [sys.executable, "-m", "app", "embed", "--ray", *_ONE_WORKER, "-o", str(output)]
    # For what a run that is killed leaves; a short name, as of sockets.
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [*command, *arguments],
            env=_variables(checkpoint) | {"TMPDIR": folder},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        run = BulkRun(process, output)
        try:
            yield run
        finally:
            if process.poll() is None:
                run.kill()
            assert process.stdout is not None
            process.stdout.close()


def embed_on_ray(checkpoint: Path, output: Path, *arguments: str) -> tuple[int, str]:
    """Run to the end; return the exit code and all that was said."""
    with started_on_ray(checkpoint, output, *arguments) as run:
        return run.finish()


def embed_here(checkpoint: Path, output: Path, folder: Path) -> int:
    """Run the command without Ray."""
    command = [sys.executable, "-m", "app", "embed", "-o", str(output), str(folder)]
    return subprocess.run(
        command, env=_variables(checkpoint), cwd=REPOSITORY, check=False, timeout=WAIT_S
    ).returncode


def read_rows(output: Path) -> dict[str, dict[str, Any]]:
    """Return all rows by name, each of which must be there once."""
    rows = pq.read_table(output).to_pylist()
    by_name = {row["path"]: row for row in rows}
    assert len(by_name) == len(rows), "an image is there twice"
    return by_name


def _variables(checkpoint: Path) -> dict[str, str]:
    return os.environ | {
        "SIGLIP_MODEL": str(checkpoint),
        "SIGLIP_DEVICE": "cpu",
        "SIGLIP_DTYPE": "float32",
    }
