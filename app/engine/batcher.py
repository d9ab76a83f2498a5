"""One inference thread that computes what many requests have queued, in batches.

When the thread's loop dies, its callers hear of it at once, and after a pause it begins anew; dying
often, it is lost for good.
"""

import asyncio
import threading
import time

import structlog

from app.engine.batch_queue import BatchQueue
from app.engine.forward import Forward, Outcome, Wanted
from app.engine.in_flight import Batch
from app.engine.job import Job
from app.engine.protocol import BatchEmbedder, DeviceLostError, Modality, TextEmbedder
from app.engine.restarts import Restarts
from app.errors import DrainingError, WorkerDeadError
from app.observe.metrics import batch_size
from app.observe.work import Stage

_log = structlog.get_logger(__name__)

# Long enough for probes to see it.
RESTART_DELAY_S = 5.0


class Batcher:
    """The thread that owns the towers, and their queue. Start it once, stop it once."""

    def __init__(
        self,
        embedder: BatchEmbedder,
        *,
        max_batch_size: int,
        max_wait_s: float = 0,
        restart_delay_s: float = RESTART_DELAY_S,
        texts: TextEmbedder | None = None,
    ) -> None:
        self._forwards: dict[Modality, Forward] = {"image": Forward(embedder, max_batch_size)}
        if texts is not None:
            self._forwards["text"] = Forward(texts, texts.info.max_batch_size, "text")
        self._embedders = (embedder,) if texts is None else (embedder, texts)
        self._queue = BatchQueue(max_in_flight=embedder.batches_in_flight, max_wait_s=max_wait_s)
        self._restart_delay_s = restart_delay_s
        self._restarts = Restarts()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the inference thread still takes work."""
        return self._queue.open and self._thread.is_alive()

    @property
    def stalled(self) -> bool:
        """Whether the batch on the device has been there too long to be hoped for."""
        return self._queue.in_flight.stalled

    @property
    def lost(self) -> bool:
        """Whether only a new process will compute again."""
        gone = not self._queue.stopping and not self._thread.is_alive()
        return self._lost or gone or self._queue.in_flight.stalled_for_good

    def per_second(self, modality: Modality) -> float:
        """Return the running mean of the device's rate over recent batches; 0 before the first."""
        return self._queue.in_flight.per_second(modality)

    @property
    def last_batch_age_s(self) -> float:
        """Seconds since the last batch ended, or since the start."""
        return time.monotonic() - self._queue.in_flight.last_finished_at

    def oldest_age_s(self, modality: Modality) -> float:
        """Return how many seconds the oldest in a line has waited; 0 for an empty line."""
        return self._queue.oldest_age_s(modality)

    def submit(self, job: Job) -> None:
        """Queue all of a job, or raise when the thread is gone or going."""
        self._queue.submit(job)

    async def compute(self, job: Job) -> list[Outcome]:
        """Queue a job and wait for its outcomes; its work has the time. Raises as `submit`.

        Whoever is cancelled takes the job out of the queue.
        """
        self.submit(job)
        try:
            return await asyncio.wrap_future(job.future)
        finally:
            now, started_at = time.monotonic(), job.started_at
            job.work.stages.append(Stage("queue", job.queued_at, started_at or now))
            if started_at is not None:
                job.work.stages.append(Stage("forward", started_at, now))

    def stop(self, timeout_s: float) -> None:
        """Finish what is queued within `timeout_s`; what is left then gets `DrainingError`."""
        self._queue.stop()
        self._thread.join(timeout_s)
        self._queue.close(DrainingError)

    def fail_all(self) -> None:
        """Tell everybody who waits that nothing will be computed: the device is stalled."""
        self._queue.fail_all(WorkerDeadError)

    def _run(self) -> None:
        while True:
            try:
                with self._queue.in_flight.entering():
                    for embedder in self._embedders:
                        embedder.enter_thread()
                self._run_batches()
            except BaseException as error:  # noqa: BLE001 # callers must hear of whatever ends it
                _log.critical("inference thread died", exc_info=True)
                self._queue.close(WorkerDeadError)
                self._queue.in_flight.batches.clear()
                hopeless = isinstance(error, DeviceLostError)
            else:
                self._queue.close(DrainingError)
                return
            self._lost = hopeless or not self._restarts.allow_another()
            if self._lost or not self._queue.reopen_after(self._restart_delay_s):
                return
            _log.warning("inference thread begins anew")

    def _run_batches(self) -> None:
        """Compute until there is nothing left and the thread is to stop."""
        while True:
            limits = {modality: own.batch_limit for modality, own in self._forwards.items()}
            if batch := self._queue.take_batch(limits):
                self._begin(batch)
            elif self._queue.in_flight.batches:
                self._finish(self._queue.in_flight.batches[0])
            else:
                return

    def _begin(self, batch: Batch) -> None:
        batch_size.labels(batch.modality).observe(len(batch.tickets))
        for job in dict.fromkeys(job for job, _ in batch.tickets):
            job.started_at = job.started_at or batch.begun_at
            job.work.join(batch.run)
        batch.wait = self._forwards[batch.modality].begin(
            [Wanted(job.inputs[index], job.patches) for job, index in batch.tickets]
        )

    def _finish(self, batch: Batch) -> None:
        outcomes = batch.wait()
        self._queue.in_flight.finish_oldest()
        for (job, index), outcome in zip(batch.tickets, outcomes, strict=True):
            job.settle(index, outcome)
        self._queue.remove_oldest()
