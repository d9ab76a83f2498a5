"""A service that asks for a key, for those who read its documentation."""

from collections.abc import Iterator

import pytest

from app.keys import ApiKeys
from app.settings import Settings
from tests.app.service_server import ServiceServer, run_service

KEY = "hush"


@pytest.fixture(scope="module")
def locked(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    """A service with a key and a real model."""
    settings = Settings(
        model="random:tiny-patch8-32",
        device="cpu",
        dtype="float32",
        api_keys=ApiKeys.of(KEY.encode()),
    )
    with run_service(settings) as service:
        service.wait_for_status("ok")
        yield service
