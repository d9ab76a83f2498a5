"""A visit to the playground: nothing may go wrong unseen, and nobody else may be asked."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    FilePayload,
    Locator,
    Page,
    Request,
    Route,
    expect,
)

_WAIT_MS = 60_000
# Chromium's own line for an answer that is no 2xx; the page has shown what it says.
_REFUSED = "Failed to load resource: the server responded with a status of "


@dataclass
class Visit:
    """Pages of one browser, what they asked the service for, and what went wrong."""

    browser: Browser
    url: str
    problems: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""

    def open(
        self, prepare: Callable[[BrowserContext], object] = lambda _: None, **options: Any
    ) -> Page:
        """Open the playground in a browser of its own, as it is prepared."""
        context = self.browser.new_context(**options)
        context.set_default_timeout(_WAIT_MS)
        expect.set_options(timeout=_WAIT_MS)
        context.route(re.compile(f"^(?!{re.escape(self.url)}/)"), self._refuse)
        context.on("request", self._note)
        prepare(context)
        page = context.new_page()
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(f"{self.url}/")
        return page

    def expect_refusal(self, status: int) -> None:
        """Forget that the service has refused something; fails when it has not."""
        said = [problem for problem in self.problems if problem.startswith(f"{_REFUSED}{status}")]
        assert said, self.problems
        self.problems = [problem for problem in self.problems if problem not in said]

    def count(self, request: str) -> int:
        """Return how often the page has asked for this, say `POST /embed`."""
        return self.asked.count(request)

    def _refuse(self, route: Route) -> None:
        self.problems.append(f"asked for {route.request.url}")
        route.abort()

    def _note(self, request: Request) -> None:
        self.asked.append(f"{request.method} {urlsplit(request.url).path}")

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(text)


def add_images(page: Page, files: dict[str, bytes]) -> None:
    """Pick files, by name, and wait until each has its vector or its error."""
    before = page.locator("#gallery li").count()
    pick_files(page, files)
    wait_for_images(page, before + len(files))


def pick_files(page: Page, files: dict[str, bytes]) -> None:
    """Pick files, by name."""
    payloads: list[FilePayload] = [
        {"name": name, "mimeType": "image/png", "buffer": content}
        for name, content in files.items()
    ]
    page.locator("#files").set_input_files(payloads)


def wait_for_images(page: Page, count: int) -> None:
    """Wait until so many images are done."""
    expect(page.locator("#status")).to_contain_text(f"{count} of {count} images")
    expect(page.locator("#progress")).to_be_hidden()


def draw_samples(page: Page) -> list[str]:
    """Press the button, wait until the images are ranked; return their names."""
    page.get_by_role("button", name="Draw samples").click()
    wait_for_images(page, 12)
    expect(page.locator("#images-for-texts h3")).to_have_count(3)
    return names_of(page.locator("#gallery img"))


def type_queries(page: Page, texts: Sequence[str]) -> None:
    """Type queries, one a line, and wait until they are ranked."""
    page.get_by_role("textbox", name="Queries").fill("\n".join(texts))
    expect(page.locator("#images-for-texts h3")).to_have_text(list(texts))


def open_view(page: Page, name: str) -> None:
    """Choose a view by its name."""
    page.locator("#views").get_by_text(name, exact=True).click()


def names_of(images: Locator) -> list[str]:
    """Return what screen readers call images."""
    return [image.get_attribute("alt") or "" for image in images.all()]
