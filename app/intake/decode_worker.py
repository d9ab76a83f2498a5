"""The process that decodes images for the service: one at a time, within limits that hold.

The kernel ends it when an image takes more CPU time than any of its size needs, and refuses it
more memory than that. Whatever becomes of it, the service starts another. It imports as little as
it can: it is started often, and a hostile file may take it over.
"""

import json
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.allocator import configure_allocators
from app.errors import ImageError
from app.intake.allowance import Allowance
from app.intake.decode import DecodeLimits, OpenImage, Resize, open_image
from app.intake.formats import load_decoders
from app.intake.message_line import MessageLine

_COPIES_OF_FILE = 3

_STATM = Path("/proc/self/statm")
_DATA_PAGES = 5  # its field of what RLIMIT_DATA limits
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Decode what comes over the inherited socket, until its other end closes."""
    line = MessageLine(socket.socket(fileno=int(sys.argv[1])), _never_wait)
    given = json.loads(sys.argv[2])
    limits = DecodeLimits(**given["limits"] | {"formats": frozenset(given["limits"]["formats"])})
    allowance = Allowance(*given["allowance"])
    _settle()
    load_decoders(limits.formats)
    line.send({})
    with suppress(EOFError, OSError):  # the service is gone
        while True:
            _serve(line, limits, allowance)


def _settle() -> None:
    """Become what may be killed at any time, and can do little else than decode."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends it; ignoring is inherited
    configure_allocators()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with suppress(OSError):  # when memory runs out, this process is to go, not the service
        Path("/proc/self/oom_score_adj").write_text("500")
    # What libraries say of a file is in the file's words, and no line for a log.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _serve(line: MessageLine, limits: DecodeLimits, allowance: Allowance) -> None:
    head, data = line.receive()
    _allow_memory(allowance.spare_bytes + _COPIES_OF_FILE * len(data))
    _allow_cpu(allowance.cpu_s + allowance.cpu_s_per_byte * len(data))
    try:
        with open_image(bytes(data), limits) as opened:
            needed_bytes = opened.decode_bytes + _bytes_between(opened.size, head["least_side"])
            if needed_bytes > head["granted_bytes"]:
                line.send({"size": opened.size, "memory": needed_bytes})
                head |= line.receive().head
            width, height = opened.size
            left_s, _ = signal.getitimer(signal.ITIMER_PROF)
            _allow_cpu(left_s + allowance.cpu_s_per_pixel * width * height)
            _allow_memory(allowance.spare_bytes + _COPIES_OF_FILE * len(data) + opened.decode_bytes)
            answer, pixels = _decode(opened, head["least_side"], head["resize"])
    except ImageError as error:
        answer, pixels = {"code": error.code, "message": error.message}, b""
    except Exception as error:  # noqa: BLE001 # a fault of ours, for the service to log
        answer, pixels = {"fault": type(error).__name__}, b""
    finally:
        _allow_cpu(0)
        _allow_memory(None)
    line.send(answer, pixels)


def _bytes_between(size: tuple[int, int], least_side: int | None) -> int:
    """Return what the service takes to resize with PyTorch what was decoded for that.

    PyTorch makes every row as wide as the model's input, also those of an image one pixel wide,
    before it makes them fewer; Pillow does what takes less first.
    """
    _, height = size
    return 0 if least_side is None else 3 * least_side * height


def _decode(
    opened: OpenImage, least_side: int | None, resize: list[Any] | None
) -> tuple[dict[str, Any], bytes]:
    wanted: Resize | None = None
    if resize is not None:
        (width, height), resample = resize
        wanted = (width, height), resample
    decoded = opened.read(least_side, wanted)
    seen = {"size": decoded.size, "format": decoded.format, "warnings": decoded.warnings}
    return seen | {"pixels_size": decoded.pixels.size}, decoded.pixels.tobytes()


def _allow_cpu(seconds: float) -> None:
    """Let the kernel end this process after so much CPU time from now; 0 is no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _allow_memory(wanted_bytes: int | None) -> None:
    """Let the process have so much more memory than it has now, where the system can tell.

    None is as much as it was started with.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = hard
    if wanted_bytes is not None:
        with suppress(OSError):
            pages = int(_STATM.read_bytes().split()[_DATA_PAGES])
            limit = pages * _PAGE_BYTES + wanted_bytes
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _never_wait(_: int) -> None:
    """Do nothing: this end of the line blocks by itself."""
