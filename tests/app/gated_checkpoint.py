"""A model that takes as long to load as a test wants."""

import os
import time
from pathlib import Path
from shutil import copytree


class GatedCheckpoint:
    """A checkpoint whose config.json is a pipe: its first reader waits until `open` is called."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.folder = Path(copytree(original, folder))
        self._config = (folder / "config.json").read_bytes()
        (folder / "config.json").unlink()
        os.mkfifo(folder / "config.json")

    def open(self) -> None:
        """Let the reader through, and those after it; waits for the first to come."""
        give_up_at = time.monotonic() + 30
        while True:
            try:
                pipe = os.open(self.folder / "config.json", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                assert time.monotonic() < give_up_at, "nobody reads config.json"
                time.sleep(0.01)
            else:
                (self.folder / "new").write_bytes(self._config)
                (self.folder / "new").replace(self.folder / "config.json")
                os.write(pipe, self._config)
                os.close(pipe)
                return
