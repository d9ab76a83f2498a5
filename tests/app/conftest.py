"""Servers that the tests of the service share; all of them run for the whole session."""

from collections.abc import Iterator

import pytest
import structlog

from app.settings import Settings
from tests.app.fake_embedder import FakeEmbedder
from tests.app.reference_pipeline import ReferencePipeline
from tests.app.service_server import ServiceServer, run_service
from tests.reference import ReferenceCheckpoint


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """Print logs as JSON lines; structlog's own default draws tracebacks with all locals."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )


@pytest.fixture(scope="session")
def server(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    """A service with the fake embedder and small limits."""
    settings = Settings(
        max_images=5,
        max_image_bytes=40_000,
        max_body_bytes=100_000,
        max_pixels=10_000,
        max_side=1_000,
        formats=frozenset({"jpeg", "png", "webp", "gif"}),
    )
    with run_service(settings, FakeEmbedder()) as service:
        yield service


@pytest.fixture(scope="session")
def tiny_server(
    _no_settings_from_outside: None, tiny_checkpoint: ReferenceCheckpoint
) -> Iterator[ServiceServer]:
    """A service with the tiny checkpoint in float32, where many clients may wait."""
    settings = Settings(
        model=str(tiny_checkpoint.folder),
        device="cpu",
        dtype="float32",
        max_images=64,
        queue_images=1_000,
    )
    with run_service(settings) as service:
        service.wait_for_status("ok")
        yield service


@pytest.fixture(scope="session")
def tiny_reference(tiny_checkpoint: ReferenceCheckpoint) -> ReferencePipeline:
    """The reference for `tiny_server`."""
    return ReferencePipeline(tiny_checkpoint)
