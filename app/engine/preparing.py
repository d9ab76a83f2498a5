"""Encoded images to the model's input size: sources, decoding processes, their memory and rate."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import structlog
from PIL import Image

from app.cores import count_cores
from app.engine.protocol import Resizer, UInt8Array
from app.engine.remote import RemoteImage, prepare_remote
from app.engine.running_mean import RunningMean
from app.engine.turn_executor import TurnExecutor
from app.errors import ImageUndecodableError, ServiceError
from app.intake.decode import DecodeLimits
from app.intake.decode_process import (
    NOTHING_GRANTED,
    DecodeProcess,
    Grant,
    Opened,
    PillowResize,
    Received,
)
from app.intake.memory import DecodeMemory

_log = structlog.get_logger(__name__)

# Weight of the newest image in the running mean of seconds that decoding takes.
_SECONDS_WEIGHT = 0.05
# Images of so few bytes, up to 0.7 megapixels of a JPEG, are decoded without asking for memory: the
# answer would take a tenth as long as the work.
_GRANTED_BYTES = 8 * 2**20

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
    """Decodes and resizes images in processes: as many as given, or as there are cores.

    Each is waited for by a thread. `decode_memory` is the bytes that images being decoded may take
    together, but for small ones.
    """

    def __init__(
        self,
        resizer: Resizer,
        limits: DecodeLimits,
        *,
        fast: bool,
        decode_memory: int,
        processes: int | None = None,
    ) -> None:
        self._resizer = resizer
        self._pretrained = resizer.info.pretrained
        # Half as much again as the model's input leaves the resize enough: docs/performance.md.
        self._least_side = 3 * resizer.info.image_size // 2 if fast else None
        self._memory = DecodeMemory(decode_memory)
        self._granted = _granted_by(resizer)
        count = processes or count_cores()
        self._processes = [DecodeProcess(limits) for _ in range(count)]
        self._idle: SimpleQueue[DecodeProcess] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        threads = ThreadPoolExecutor(len(self._processes), thread_name_prefix="decode")
        self._pool = TurnExecutor(threads)
        self._seconds = RunningMean(_SECONDS_WEIGHT)

    @property
    def images_per_s(self) -> float:
        """Running mean of the rate at which images can be prepared; infinite before the first."""
        seconds = self._seconds.value
        return len(self._processes) / seconds if seconds else float("inf")

    @property
    def broken(self) -> bool:
        """Whether decoding processes do not even start."""
        return all(process.broken for process in self._processes)

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
        """End processes and threads; what they have not begun they never will."""
        self._pool.shutdown()
        for process in self._processes:
            process.close()

    def _prepare(self, source: ImageSource) -> PreparedImage | ServiceError:
        start = time.monotonic()
        process = self._idle.get()
        try:
            with ExitStack() as held:  # until the image is small
                reserve = partial(self._reserve, held)
                received = process.decode(source(), self._least_side, reserve, self._granted)
                pixels = self._resized(received)
            self._seconds.note(time.monotonic() - start)
            return PreparedImage(pixels, self._seen(received, pixels))
        except ServiceError as error:
            # As a value it outlives the call, and its frames would keep the image's bytes alive.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except Exception:  # noqa: BLE001 # a fault of ours must stay with its image
            _log.exception("decoding failed unexpectedly")
            return ImageUndecodableError("the image cannot be decoded")
        finally:
            self._idle.put(process)

    def _reserve(self, held: ExitStack, opened: Opened) -> PillowResize | None:
        """Wait for an image's memory, and say what to resize it to where Pillow does that."""
        held.enter_context(self._memory.reserved(opened.decode_bytes))
        return self._resizer.pillow_resize(opened.size)

    def _resized(self, received: Received) -> UInt8Array:
        width, height = received.pixels_size
        pixels = np.frombuffer(received.rgb, np.uint8).reshape(height, width, 3)
        return pixels if received.resized else self._resizer.resize(Image.fromarray(pixels))

    def _seen(self, received: Received, pixels: UInt8Array) -> SeenImage:
        width, height = received.size
        warnings = received.warnings
        input_height, input_width, _ = pixels.shape
        if width < input_width or height < input_height:
            warnings += ("upscaled",)
        if not self._pretrained:
            warnings += ("random_weights",)
        return SeenImage(width, height, received.format, warnings, (input_height, input_width))


def _granted_by(resizer: Resizer) -> Grant:
    if resizer.info.naflex:
        return NOTHING_GRANTED  # each size is resized to another
    side = resizer.info.image_size
    return Grant(_GRANTED_BYTES, resizer.pillow_resize((side, side)))
