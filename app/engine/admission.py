"""Who may come in: as many images as are worked off within a time that is worth waiting for.

By Little's law a queue of `rate * wait` images keeps the device busy and nobody longer than `wait`.
A fixed number would be minutes of work on one machine and milliseconds on another.
"""

import math
import random
import threading
from collections.abc import Callable

from app.errors import QueueFullError

_TARGET_WAIT_S = 3.0
_MOST_IMAGES = 4096
_IMAGES_WHILE_UNKNOWN = 64
_RETRY_AFTER_S = range(1, 31)


class Admission:
    """Permits for images, from before their decoding until their request is answered.

    `rate` tells the images a second that come out, 0 while unknown. `queue_images` fixes the number
    of permits; without it the rate decides, at least `least_images`.
    """

    def __init__(
        self, rate: Callable[[], float], *, least_images: int, queue_images: int | None = None
    ) -> None:
        self._rate = rate
        self._least_images = least_images
        self._queue_images = queue_images
        self._lock = threading.Lock()
        self.images = 0

    @property
    def limit(self) -> int:
        """From how many admitted images on a request is refused."""
        if self._queue_images is not None:
            return self._queue_images
        rate = self._rate()
        images = math.ceil(rate * _TARGET_WAIT_S) if rate else _IMAGES_WHILE_UNKNOWN
        return min(max(images, self._least_images), _MOST_IMAGES)

    def require_room(self, timeout_s: float) -> None:
        """Raise `QueueFullError` when a request that can wait `timeout_s` would come in vain."""
        rate = self._rate()
        wait_s = self.images / rate if rate else 0.0
        if self.images >= self.limit or wait_s > timeout_s:
            raise QueueFullError("too many images are waiting", retry_after_s=_retry_after(wait_s))

    def admit(self, images: int, timeout_s: float) -> None:
        """Take a permit for each image of a request, or raise `QueueFullError`.

        The last request to find room may go over the limit with all of its images: otherwise small
        requests could keep a large one out for ever.
        """
        with self._lock:
            self.require_room(timeout_s)
            self.images += images

    def release(self, images: int = 1) -> None:
        """Give permits back."""
        with self._lock:
            self.images -= images


def _retry_after(wait_s: float) -> int:
    """Return seconds to wait, spread so that those refused together do not return together."""
    spread = random.random()  # noqa: S311 # no secret
    return min(max(math.ceil(wait_s + spread), _RETRY_AFTER_S[0]), _RETRY_AFTER_S[-1])
