"""A process that decodes images, seen from the service: whatever ends it, there will be another.

Messages are plain values and bytes: nothing of a process that a file has taken over is run here.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import structlog

import app
from app.errors import (
    DrainingError,
    ImageError,
    ImageSuspiciousError,
    ImageUndecodableError,
    InternalError,
    ServiceError,
)
from app.intake.allowance import FOR_ANY_IMAGE, Allowance
from app.intake.decode import DecodeLimits
from app.intake.message_line import Message, MessageLine

_log = structlog.get_logger(__name__)

_START = "from app.intake.decode_worker import main; main()"
# The rest of the environment holds keys and tokens, which no decoder needs.
_ENVIRONMENT = frozenset(
    {"LANG", "LC_ALL", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", "PYTHONDONTWRITEBYTECODE"}
)
# A process that has used no CPU time in so many looks, one a second, hangs.
_LOOK_EVERY_MS = 1000
_IDLE_LOOKS = 5
_STARTING_LOOKS = 60  # to read its modules from a slow disk takes no CPU time either
_MESSAGE_TIMEOUT_S = 60.0  # from a message's first byte on
_SOCKET_BYTES = 2**20  # an image of the model's input size goes in one piece
_TAKES_TOO_LONG = "the image takes far longer to decode than any of its size"
_ERRORS = MappingProxyType({kind.code: kind for kind in ImageError.__subclasses__()})


class Opened(NamedTuple):
    """An image whose header has been read: upright (width, height); bytes that decoding takes."""

    size: tuple[int, int]
    decode_bytes: int


class PillowResize(NamedTuple):
    """What Pillow is to bring an image to, (width, height) in pixels, and by which filter."""

    size: tuple[int, int]
    resample: int


class Grant(NamedTuple):
    """What a process need not ask for: so much memory, and what to resize an image to."""

    decode_bytes: int
    resize: PillowResize | None


NOTHING_GRANTED = Grant(-1, None)


class Received(NamedTuple):
    """Upright RGB pixels, 3 bytes each and row by row, and what the process says of their image.

    `pixels_size` is theirs, `size` that of the whole image: (width, height).
    """

    rgb: bytearray
    pixels_size: tuple[int, int]
    size: tuple[int, int]
    format: str
    warnings: tuple[str, ...]


OnOpen = Callable[[Opened], PillowResize | None]


class DecodeProcess:
    """Decodes images in a process of its own, for one thread at a time.

    A decoder that crashes, hangs or takes too much costs the image at fault; the next image gets a
    new process.
    """

    def __init__(self, limits: DecodeLimits, allowance: Allowance = FOR_ANY_IMAGE) -> None:
        self._limits = limits
        self._most_pixel_bytes = 3 * limits.max_pixels
        self._allowance = allowance
        self._closed = False
        self._ready = False
        self._starting = threading.Lock()  # not while it is closed
        self._decoding = threading.Lock()
        self.broken = False
        """Whether the latest process did not even start."""
        self._start()

    def decode(
        self,
        data: bytes,
        least_side: int | None,
        on_open: OnOpen,
        granted: Grant = NOTHING_GRANTED,
    ) -> Received:
        """Decode one image as `decode_image` does, then resize it as `on_open` says, if it does.

        `on_open` hears what decoding takes before it is taken, and may wait until there is so much.
        It is not asked about images that get by with what is `granted`.
        Raises an `ImageError`; `InternalError` when no process starts, `DrainingError` once closed.
        """
        with self._decoding:
            head, payload = self._ask(
                {
                    "least_side": least_side,
                    "granted_bytes": granted.decode_bytes,
                    "resize": granted.resize,
                },
                data,
                on_open,
            )
        if "code" in head:
            raise _ERRORS[head["code"]](head["message"])
        if "fault" in head:
            _log.error("decoding failed unexpectedly", error=head["fault"])
            raise ImageUndecodableError("the image cannot be decoded")
        return Received(
            payload,
            tuple(head["pixels_size"]),
            tuple(head["size"]),
            head["format"],
            tuple(head["warnings"]),
        )

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the process has used; 0 where the system does not tell."""
        with suppress(OSError):
            return time.clock_gettime((~self._process.pid << 3) | 2)  # clock_getcpuclockid(3)
        return 0.0

    def close(self) -> None:
        """End the process; from any thread, and for good."""
        with self._starting:
            self._closed = True
            self._end()
        with self._decoding:
            self._line.close()

    def _ask(self, request: dict[str, Any], data: bytes, on_open: OnOpen) -> Message:
        """Talk with the process, and end it when it is of no more use."""
        if self._process.poll() is not None:
            self._restart()
        try:
            return self._converse(request, data, on_open)
        except (EOFError, OSError, ValueError):
            self._end()
            raise self._explain_death() from None
        except BaseException:
            self._end()  # it waits for an answer that nobody will give
            raise

    def _converse(self, request: dict[str, Any], data: bytes, on_open: OnOpen) -> Message:
        if not self._ready:
            self._receive(0, _STARTING_LOOKS)
            self._ready, self.broken = True, False
        self._line.send(request, data)
        answer = self._receive(self._most_pixel_bytes)
        if "memory" not in answer.head:
            return answer
        resize = on_open(Opened(tuple(answer.head["size"]), answer.head["memory"]))
        self._line.send({"resize": resize})
        return self._receive(self._most_pixel_bytes)

    def _restart(self) -> None:
        with self._starting:
            if self._closed:
                raise _closing()
            self._line.close()
            try:
                self._start()
            except OSError as error:
                _log.error("a decoding process cannot be started", error=error.strerror)
                raise InternalError("images cannot be decoded") from None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        ours.settimeout(_MESSAGE_TIMEOUT_S)
        self._line, self._ready = MessageLine(ours), False
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 # our own code
                [sys.executable, "-c", _START, str(theirs.fileno()), self._arguments()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def _arguments(self) -> str:
        limits = asdict(self._limits) | {"formats": sorted(self._limits.formats)}
        return json.dumps({"limits": limits, "allowance": self._allowance})

    def _end(self) -> None:
        self._process.kill()  # does nothing to one that has ended by itself
        self._process.wait()

    def _receive(self, max_payload_bytes: int, looks: int = _IDLE_LOOKS) -> Message:
        """Wait for a message as long as the process computes."""
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        used_s, idle_looks = -1.0, 0
        while not poll.poll(_LOOK_EVERY_MS):
            before_s, used_s = used_s, self.cpu_s
            idle_looks = idle_looks + 1 if used_s == before_s else 0
            if idle_looks == looks:
                raise ImageSuspiciousError(_TAKES_TOO_LONG)
        return self._line.receive(max_payload_bytes)

    def _explain_death(self) -> ServiceError:
        code = self._process.returncode
        if self._closed:
            return _closing()
        if code == -signal.SIGPROF:
            return ImageSuspiciousError(_TAKES_TOO_LONG)
        if not self._ready:
            self.broken = True
            _log.critical("a decoding process does not start", exit_code=code)
            return InternalError("images cannot be decoded")
        _log.error("a decoder crashed", exit_code=code)
        return ImageUndecodableError("the image cannot be decoded")


def _closing() -> DrainingError:
    return DrainingError("the service is shutting down", retry_after_s=5)


def _environment() -> dict[str, str]:
    """Make the environment of a process that finds this code and knows no secrets."""
    given = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    root = Path(app.__file__).parents[1]  # where an editable install has it, which no path says
    return given | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
