"""Ten times the load that can be served: refused at once and properly, while the device is full.

The load is open: requests come whether or not earlier ones were answered. How fast the device is
compared with it is counted in steps, not in seconds, so that it is the same on every machine.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from app.engine.protocol import Pixels, Vectors
from app.settings import Settings
from tests.app.answers import check_error, request_of
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

BATCH = 8
QUEUE = 3 * BATCH
FACTOR = 10
STEPS = 8
GOODPUT = 0.9
WAIT_S = 30
REQUEST = request_of("raw", [plain_png((10, 20, 30))])


@dataclass
class SteppedEmbedder(FakeEmbedder):
    """Computes a batch for each step that it is given."""

    steps: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def begin(self, pixels: Pixels, patches_of: int = 0) -> Callable[[], Vectors]:
        wait = super().begin(pixels, patches_of)

        def wait_for_a_step() -> Vectors:
            assert self.steps.acquire(timeout=WAIT_S)
            return wait()

        return wait_for_a_step


async def _overload(service: ServiceServer, embedder: SteppedEmbedder) -> list[httpx.Response]:
    """Offer ten batches for each that is computed: -> all answers, those of the queue last."""
    async with httpx.AsyncClient(
        base_url=service.url, timeout=WAIT_S, trust_env=False, limits=httpx.Limits()
    ) as client:
        sent: list[asyncio.Task[httpx.Response]] = []
        waiting: set[asyncio.Task[httpx.Response]] = set()
        for _ in range(STEPS):
            new = [
                asyncio.create_task(client.post("/embed", **REQUEST)) for _ in range(FACTOR * BATCH)
            ]
            sent += new
            waiting.update(new)
            while len(waiting) > QUEUE:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            embedder.steps.release()
        embedder.steps.release(QUEUE)
        return await asyncio.gather(*sent)


def test_ten_times_the_load_is_refused_while_the_device_is_full() -> None:
    embedder = SteppedEmbedder(max_batch_size=BATCH)
    with run_service(Settings(queue_images=QUEUE), embedder) as service:
        answers = asyncio.run(_overload(service, embedder))

        refused = [answer for answer in answers if answer.status_code != 200]
        for answer in refused:
            check_error(answer, 429, "queue_full")
        served = len(answers) - len(refused)
        assert served == len(embedder.computed), "nothing is lost, nothing computed in vain"
        under_load = embedder.batches[1:STEPS]  # the first was begun with the first request
        images = sum(len(batch.colours) for batch in under_load)
        assert images >= GOODPUT * BATCH * len(under_load), "the device was kept busy"
        assert service.client.post("/embed", **REQUEST).status_code == 200
