"""The decode pool: what is cancelled before its turn lets go of its bytes at once."""

import gc
import threading
import weakref

from app.cores import count_cores
from app.engine.preparing import Preparer
from app.errors import ServiceError
from app.intake.decode import DecodeLimits
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png

LIMITS = DecodeLimits(2**20, 10**6, 16384, frozenset({"png"}))
WAIT_S = 30


class Encoded:
    """An image's bytes, whose end can be seen."""

    def __call__(self) -> bytes:
        return plain_png((1, 2, 3))


def test_a_cancelled_image_is_forgotten_while_the_pool_is_busy() -> None:
    preparer = Preparer(FakeEmbedder(), LIMITS, fast=False, decode_memory=2**30)
    gate = threading.Event()

    def wait_at_the_gate() -> bytes:
        assert gate.wait(WAIT_S)
        return plain_png((1, 2, 3))

    busy = [preparer.begin(wait_at_the_gate) for _ in range(count_cores())]
    encoded = Encoded()
    alive = weakref.ref(encoded)
    waiting = preparer.begin(encoded)
    del encoded

    assert alive() is not None
    assert waiting.cancel()
    gc.collect()
    assert alive() is None

    gate.set()
    assert not any(isinstance(image.result(WAIT_S), ServiceError) for image in busy)
    preparer.close()
