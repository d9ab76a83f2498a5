"""Encoded images to the model's input size: sources, the decode pool, its memory and its rate."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import structlog

from app.engine.protocol import Embedder, UInt8Array
from app.engine.remote import RemoteImage, prepare_remote
from app.engine.running_mean import RunningMean
from app.engine.turn_executor import TurnExecutor
from app.errors import ImageUndecodableError, ServiceError
from app.intake.decode import DecodedImage, DecodeLimits, decode_image
from app.intake.memory import DecodeMemory

_log = structlog.get_logger(__name__)

# Weight of the newest image in the running mean of seconds that decoding takes.
_SECONDS_WEIGHT = 0.05
# Images of 49 million pixels were seen to take a second. A decoder that hangs is not interrupted.
_STALL_S = 60.0

ImageSource = Callable[[], bytes]
"""Gives the encoded bytes of one image; runs on the decode pool and may raise a `ServiceError`."""


@dataclass(frozen=True)
class SeenImage:
    """What was seen of an image: upright size in pixels, encoded format, warning codes.

    `input_size` is the height and width in pixels that the model got of it.
    """

    width: int
    height: int
    format: str
    warnings: tuple[str, ...]
    input_size: tuple[int, int]


class PreparedImage(NamedTuple):
    """A decoded image at the model's input size, uint8 (height, width, 3); what was seen of it."""

    pixels: UInt8Array
    seen: SeenImage


Preparing = Future[PreparedImage | ServiceError]


class Preparer:
    """Decodes and resizes images on threads of its own, as many as the machine has cores.

    `decode_memory` is the bytes that images being decoded may take together.
    """

    def __init__(
        self, embedder: Embedder, limits: DecodeLimits, *, fast: bool, decode_memory: int
    ) -> None:
        self._resize = embedder.resize
        self._pretrained = embedder.info.pretrained
        self._limits = limits
        # Half as much again as the model's input leaves the resize enough: docs/performance.md.
        self._least_side = 3 * embedder.info.image_size // 2 if fast else None
        self._memory = DecodeMemory(decode_memory)
        self._threads = os.cpu_count() or 1
        self._pool = TurnExecutor(ThreadPoolExecutor(self._threads, thread_name_prefix="decode"))
        self._seconds = RunningMean(_SECONDS_WEIGHT)
        self._begun_at: dict[int, float] = {}  # of the image that each busy thread is at

    @property
    def images_per_s(self) -> float:
        """Running mean of the rate at which images can be prepared; infinite before the first."""
        seconds = self._seconds.value
        return self._threads / seconds if seconds else float("inf")

    @property
    def stalled(self) -> bool:
        """Whether all threads have been at their images too long to be hoped for."""
        return self._stuck_for_s > _STALL_S

    @property
    def stalled_for_good(self) -> bool:
        """Whether they have been there twice as long."""
        return self._stuck_for_s > 2 * _STALL_S

    def begin(self, source: ImageSource | RemoteImage, owner: object = None) -> Preparing:
        """Queue one image; errors come as values. Owners take turns, each with its oldest image."""
        submit = partial(self._pool.submit, owner)
        if isinstance(source, RemoteImage):
            return prepare_remote(source, self._prepare, submit)
        held = [source]
        preparing = submit(lambda: self._prepare(held.pop()))
        # Cancelled, it may wait for its thread for long, and would keep the image's bytes.
        preparing.add_done_callback(lambda _: held.clear())
        return preparing

    def close(self) -> None:
        """End the threads; what they have not begun they never will."""
        self._pool.shutdown()

    @property
    def _stuck_for_s(self) -> float:
        begun_at = list(self._begun_at.values())
        return time.monotonic() - max(begun_at) if len(begun_at) == self._threads else 0.0

    def _prepare(self, source: ImageSource) -> PreparedImage | ServiceError:
        start = self._begun_at[threading.get_ident()] = time.monotonic()
        try:
            with ExitStack() as held:  # until the image is small
                decoded = decode_image(
                    source(),
                    self._limits,
                    reserve=lambda size: held.enter_context(self._memory.reserved(size)),
                    least_side=self._least_side,
                )
                pixels = self._resize(decoded.pixels)
            self._seconds.note(time.monotonic() - start)
            return PreparedImage(pixels, self._seen(decoded, pixels))
        except ServiceError as error:
            # As a value it outlives the call, and its frames would keep the decoded pixels alive.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except Exception:  # noqa: BLE001 # a fault of ours must stay with its image
            _log.exception("decoding failed unexpectedly")
            return ImageUndecodableError("the image cannot be decoded")
        finally:
            del self._begun_at[threading.get_ident()]

    def _seen(self, decoded: DecodedImage, pixels: UInt8Array) -> SeenImage:
        width, height = decoded.size
        warnings = decoded.warnings
        input_height, input_width, _ = pixels.shape
        if width < input_width or height < input_height:
            warnings += ("upscaled",)
        if not self._pretrained:
            warnings += ("random_weights",)
        return SeenImage(width, height, decoded.format, warnings, (input_height, input_width))
