"""The one flow, under a route of its own: what any route gets from it."""

import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from starlette.requests import Request
from starlette.responses import Response

from app.api.door import admit_images, enter
from app.api.render import Answer
from app.api.submit import submit
from app.observe.work import Stage, Work
from app.settings import Settings
from tests.app.answers import check_error
from tests.app.fake_embedder import FakeEmbedder
from tests.app.service_server import ServiceServer, run_service

MAX_RESPONSE_BYTES = 2**22
LARGE_BYTES = 2**21


class Echo(NamedTuple):
    """What the route computes."""

    body: bytes


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    """A service with a route that answers with its body, of `max-bytes` at most, a header says."""
    settings = Settings(max_response_bytes=MAX_RESPONSE_BYTES)
    with run_service(settings, FakeEmbedder()) as running:

        @running.app.post("/echo")
        async def echo(request: Request) -> Response:
            service, form, timeout_s = enter(request, admit_images)
            body = await request.body()
            loop_thread = threading.current_thread()

            async def compute(work: Work) -> Echo:
                work.stages.append(Stage("echo", 1.0, 1.25))
                return Echo(body)

            def render(result: Echo) -> Answer:
                where = "loop" if threading.current_thread() is loop_thread else "thread"
                headers = {"X-Rendered-In": where, "X-Form": form, "X-Timeout": str(timeout_s)}
                return Answer(result.body, "text/plain", headers)

            most = int(request.headers["max-bytes"])
            space = service.info.space
            return await submit(request, compute, render, space=space, max_answer_bytes=most)

        yield running


@pytest.mark.parametrize(("max_bytes", "where"), [(5, "loop"), (LARGE_BYTES, "thread")])
def test_a_result_is_rendered_where_its_size_belongs_and_tells_space_and_time(
    service: ServiceServer, max_bytes: int, where: str
) -> None:
    answer = service.client.post("/echo", content=b"hello", headers={"max-bytes": str(max_bytes)})

    assert answer.content == b"hello"
    assert answer.headers["x-rendered-in"] == where
    assert answer.headers["x-embedding-space"] == FakeEmbedder().info.space
    assert answer.headers["server-timing"].startswith("echo;dur=250.0, serialize;dur=")


def test_the_head_says_form_and_patience(service: ServiceServer) -> None:
    headers = {"max-bytes": "5", "Accept": "application/x-npy", "X-Request-Timeout-Ms": "1500"}
    answer = service.client.post("/echo", content=b"hello", headers=headers)

    assert (answer.headers["x-form"], answer.headers["x-timeout"]) == ("npy", "1.5")


def test_an_answer_that_may_be_too_large_is_refused(service: ServiceServer) -> None:
    headers = {"max-bytes": str(MAX_RESPONSE_BYTES + 1)}

    check_error(service.client.post("/echo", headers=headers), 413, "response_too_large")
