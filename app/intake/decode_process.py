"""A process that decodes images, seen from the service: whatever ends it, there will be another.

Messages are plain values and bytes: nothing of a process that a file has taken over is run here.
"""

import json
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, NamedTuple

import structlog

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
from app.intake.decode_child import DecodeChild, HangingError
from app.intake.message_line import Message

_log = structlog.get_logger(__name__)

# For an image whose process dies of something else.
_TRIES = 3
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

    `pixels_size` is theirs, `size` that of the whole image: (width, height). `resized` is whether
    they have been brought to what was asked for.
    """

    rgb: bytearray
    pixels_size: tuple[int, int]
    size: tuple[int, int]
    format: str
    warnings: tuple[str, ...]
    resized: bool


OnOpen = Callable[[Opened], PillowResize | None]


class DecodeProcess:
    """Decodes images in a process of its own, for one thread at a time.

    A decoder that crashes, hangs or takes too much costs the image at fault; the next image gets a
    new process. One that dies of something else costs nobody anything.
    """

    def __init__(self, limits: DecodeLimits, allowance: Allowance = FOR_ANY_IMAGE) -> None:
        formats = sorted(limits.formats)
        self._arguments = json.dumps(
            {"limits": asdict(limits) | {"formats": formats}, "allowance": allowance}
        )
        self._most_pixel_bytes = 3 * limits.max_pixels
        self._closed = False
        self._starting = threading.Lock()  # not while it is closed
        self._decoding = threading.Lock()
        self.broken = False
        """Whether the latest processes did not even start, or could not be made."""
        self.child = DecodeChild(self._arguments)
        """The process of this moment."""

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
        Raises an `ImageError`; `InternalError` when no process starts or something ends all that
        do, `DrainingError` once closed.
        """
        request: dict[str, Any] = {
            "least_side": least_side,
            "granted_bytes": granted.decode_bytes,
            "resize": granted.resize,
        }
        with self._decoding:
            head, payload = self._ask(request, data, on_open)
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
            resized=request["resize"] is not None,
        )

    def close(self) -> None:
        """End the process; from any thread, and for good."""
        with self._starting:
            self._closed = True
            self.child.end()
        with self._decoding:  # which ends with the process
            self.child.line.close()

    def _ask(self, request: dict[str, Any], data: bytes, on_open: OnOpen) -> Message:
        """Talk with a process; with another one if it dies, and not of this image."""
        for _ in range(_TRIES):
            self._have_living_child()
            try:
                return self._converse(request, data, on_open)
            except (EOFError, OSError, ValueError, HangingError) as fault:
                code = self.child.end()
                error = self._explain_death(code, hung=isinstance(fault, HangingError))
            except BaseException:
                self.child.end()  # it waits for an answer that nobody will give
                raise
            if error is not None:
                raise error
        self.broken = self.child.stage == "starting"
        raise InternalError("images cannot be decoded")

    def _converse(self, request: dict[str, Any], data: bytes, on_open: OnOpen) -> Message:
        child = self.child
        if child.stage == "starting":
            child.line.receive(0)
            self.broken = False
        child.stage = "opening"
        child.line.send(request, data)
        answer = child.line.receive(self._most_pixel_bytes)
        if "memory" not in answer.head:
            return answer
        child.stage = "decoding"
        request["resize"] = on_open(Opened(tuple(answer.head["size"]), answer.head["memory"]))
        child.line.send({"resize": request["resize"]})
        return child.line.receive(self._most_pixel_bytes)

    def _have_living_child(self) -> None:
        if self.child.alive:
            return
        with self._starting:
            if self._closed:
                raise _closing()
            self.child.line.close()
            try:
                self.child = DecodeChild(self._arguments)
            except OSError as error:
                self.broken = True
                _log.error("a decoding process cannot be started", error=error.strerror)
                raise InternalError("images cannot be decoded") from None

    def _explain_death(self, code: int, *, hung: bool) -> ServiceError | None:
        """Say what an image's process has died of; None if it may not have been the image."""
        if self._closed:
            return _closing()
        _log.error("a decoding process ended", exit_code=code, stage=self.child.stage, hung=hung)
        stage, killed = self.child.stage, code == -signal.SIGKILL and not hung
        if stage == "starting" or (stage == "opening" and (hung or killed)):
            return None  # it may have been stopped or killed while it had nothing to do
        if hung or code == -signal.SIGPROF:
            return ImageSuspiciousError(_TAKES_TOO_LONG)
        if killed:  # by the system, for want of memory, or by somebody
            return InternalError("the image's decoder was ended from outside")
        return ImageUndecodableError("the image cannot be decoded")


def _closing() -> DrainingError:
    return DrainingError("the service is shutting down", retry_after_s=5)
