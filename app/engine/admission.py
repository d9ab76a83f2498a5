"""Who may come in: a request whose turn will have come within a time that is worth waiting for.

By Little's law a queue of `rate * wait` images keeps the device busy and nobody longer than `wait`.
A fixed number would be minutes of work on one machine and milliseconds on another. Requests take
turns, so what counts is not all that wait, but those that come before the last image of this one.
"""

import math
import random
import threading
from collections.abc import Callable

from app.engine.turns import places_ahead
from app.errors import QueueFullError

_TARGET_WAIT_S = 3.0
_MOST_IMAGES = 4096
_IMAGES_WHILE_UNKNOWN = 64
_RETRY_AFTER_S = range(1, 31)
_HOW_TO_GET_IN = (
    "too many images are waiting: send many images in one request (/v1/models says how many), "
    "few requests at a time, and try again after Retry-After"
)


class Permits:
    """The permits of one request, one for each of its images by index."""

    def __init__(self, images: int, give_back: Callable[[set[int], int], None]) -> None:
        self._held = set(range(images))
        self._give_back = give_back

    def release(self, index: int) -> None:
        """Give an image's permit back, if that has not been done."""
        self._give_back(self._held, index)


class Admission:
    """Permits for images, from before their decoding until each has its vector or has failed.

    `rate` tells the images a second that come out, 0 while unknown. `queue_images` fixes the number
    of images that may come before a new request's; without it the rate decides, at least
    `least_images`.
    """

    def __init__(
        self, rate: Callable[[], float], *, least_images: int, queue_images: int | None = None
    ) -> None:
        self._rate = rate
        self._least_images = least_images
        self._queue_images = queue_images
        self._lock = threading.Lock()
        self._requests = 0
        self.images = 0

    @property
    def limit(self) -> int:
        """How many images ahead are too many."""
        if self._queue_images is not None:
            return self._queue_images
        rate = self._rate()
        images = math.ceil(rate * _TARGET_WAIT_S) if rate else _IMAGES_WHILE_UNKNOWN
        return min(max(images, self._least_images), _MOST_IMAGES)

    def require_room(self, timeout_s: float, images: int = 1) -> None:
        """Raise `QueueFullError` when a request that can wait `timeout_s` would come in vain.

        The error says when there will be room for it, if nobody else comes.
        """
        ahead, limit, rate = self._images_ahead(images), self.limit, self._rate()
        fewest_too_many = min(limit, math.floor(rate * timeout_s) + 1) if rate else limit
        if ahead < fewest_too_many and self.images < max(limit, _MOST_IMAGES):
            return
        wait_s = (ahead - fewest_too_many + 1) / rate if rate else 0.0
        raise QueueFullError(_HOW_TO_GET_IN, retry_after_s=_retry_after(wait_s))

    def admit(self, images: int, timeout_s: float) -> Permits:
        """Take a permit for each image of a request, or raise `QueueFullError`.

        The last request to find room may go over the limit with all of its images: otherwise small
        requests could keep a large one out for ever. And while a large one fills the queue, there
        is room for small ones, whose turn comes sooner.
        """
        with self._lock:
            self.require_room(timeout_s, images)
            self.images += images
            self._requests += 1
        return Permits(images, self._give_back)

    def _images_ahead(self, images: int) -> int:
        return places_ahead(images, self._requests, self.images)

    def _give_back(self, held: set[int], index: int) -> None:
        with self._lock:
            if index in held:
                held.remove(index)
                self.images -= 1
                self._requests -= not held


def _retry_after(wait_s: float) -> int:
    """Return seconds to wait, spread so that those refused together do not return together."""
    spread = random.random()  # noqa: S311 # no secret
    return min(max(math.ceil(wait_s + spread), _RETRY_AFTER_S[0]), _RETRY_AFTER_S[-1])
