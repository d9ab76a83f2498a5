"""Threads that many requests share: whoever has work waiting for them takes turns."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

from app.engine.turns import Turns

Result = TypeVar("Result")


class TurnExecutor:
    """Puts the order of `Turns` before an executor that takes what comes first.

    That gets, for each piece of work, a call that runs the piece whose place is next by then.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        self._waiting: Turns[object, _Work[Any]] = Turns()

    def submit(self, owner: object, call: Callable[[], Result]) -> Future[Result]:
        """Queue a call behind the owner's earlier ones; it can be cancelled until it runs.

        Raises `RuntimeError` after the shutdown.
        """
        work = _Work(call)
        with self._lock:
            self._waiting.add(owner, [work])
        self._executor.submit(self._run_next)
        return work.future

    def shutdown(self) -> None:
        """Cancel what has not begun; what runs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            left = [self._waiting.take()[1] for _ in range(len(self._waiting))]
        for work in left:
            work.future.cancel()

    def _run_next(self) -> None:
        with self._lock:
            if not self._waiting:
                return  # shut down meanwhile
            _, work = self._waiting.take()
        work.run()


class _Work(Generic[Result]):
    """A call, and the future of what it returns."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self.future: Future[Result] = Future()
        self._call = call

    def run(self) -> None:
        """Make the call, unless its future was cancelled."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 # it is for whoever waits
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
