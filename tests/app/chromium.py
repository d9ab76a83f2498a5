"""The system's Chromium, without a window.

Without it a test is skipped; with REQUIRE_CHROMIUM=1 it fails instead.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

# No display, no rights to shed, no talk with anybody but the service.
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def run_chromium() -> Iterator[Browser]:
    """Run a browser that was never used; one at a time, and not across tests that use asyncio."""
    chromium = shutil.which("chromium")
    if chromium is None and os.environ.get("REQUIRE_CHROMIUM") == "1":
        pytest.fail("REQUIRE_CHROMIUM=1, but there is no chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=_FLAGS) as browser,
    ):
        yield browser
