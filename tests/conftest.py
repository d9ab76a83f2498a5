"""Fixtures that several folders of tests share."""

import logging
import os
from collections.abc import Iterator

import pytest
import skimage.data
import structlog
from PIL import Image

from tests.hub_server import HubServer, point_client_at, run_hub_server
from tests.reference import ReferenceCheckpoint, write_checkpoint

_LIBRARIES = (
    *("httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "PIL", "python_multipart"),
)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Keep the caller's SIGLIP_* variables out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SIGLIP_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Put back what `configure_logs` changes for the whole process.

    Whatever starts a command calls it, and the stream that it names is closed after the test.
    """
    before = structlog.get_config()
    loggers = [logging.getLogger(), *map(logging.getLogger, _LIBRARIES)]
    handlers = [logger.handlers[:] for logger in loggers]
    levels = [logger.level for logger in loggers]
    yield
    for logger, own_handlers, level in zip(loggers, handlers, levels, strict=True):
        logger.handlers[:] = own_handlers
        logger.setLevel(level)
    structlog.reset_defaults()
    structlog.configure(**before)


@pytest.fixture(scope="session")
def photographs() -> list[Image.Image]:
    """Four RGB photographs of different size and shape: astronaut, coffee, chelsea, rocket."""
    arrays = (
        skimage.data.astronaut(),
        skimage.data.coffee(),
        skimage.data.chelsea(),
        skimage.data.rocket(),
    )
    return [Image.fromarray(array) for array in arrays]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ReferenceCheckpoint:
    """A tiny checkpoint as published ones are spelled; to be read only, so copy it to change it."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny-checkpoint"))


@pytest.fixture
def hub(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """An empty hub on loopback that huggingface_hub uses in this test, with an empty cache."""
    cache = tmp_path_factory.mktemp("hub-cache")
    with run_hub_server() as server, point_client_at(server.url, cache, monkeypatch):
        yield server
