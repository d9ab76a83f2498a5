"""`python -m tests.deploy.fake_service`: `serve` as it is, but with the fake embedder.

SIGUSR1 makes the device hang, SIGUSR2 lets it go on. Red images make it fail: `fake_embedder`.
With FAKE_HANGS_AT_LOAD it hangs from the start, so the model loads until SIGUSR2. FAKE_COSINE is
what its self-test finds, FAKE_STALL_S after how long a batch is given up.
"""

import os
import signal
from dataclasses import replace

import app.__main__
import app.main
from app.engine import in_flight
from app.engine.protocol import Embedder, ModelInfo
from app.settings import Settings
from tests.app.fake_embedder import FakeEmbedder


class _Fake(FakeEmbedder):
    @property
    def info(self) -> ModelInfo:
        return replace(super().info, selftest_cosine=float(os.environ.get("FAKE_COSINE", "0.9999")))


_embedder = _Fake(max_batch_size=2)  # so that what hangs is not all that is admitted


def _load(settings: Settings) -> Embedder:
    del settings
    _embedder.gate.wait()
    return _embedder


app.main.load_model = _load
in_flight._STALL_S = float(os.environ.get("FAKE_STALL_S", "60"))
if "FAKE_HANGS_AT_LOAD" in os.environ:
    _embedder.gate.clear()
signal.signal(signal.SIGUSR1, lambda *_: _embedder.gate.clear())
signal.signal(signal.SIGUSR2, lambda *_: _embedder.gate.set())
app.__main__.cli(["serve"])
