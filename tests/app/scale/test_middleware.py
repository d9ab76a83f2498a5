"""What Ray says is brought to the contract, and what others say is left alone."""

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from app.scale.middleware import list_middlewares


def ask(answer: ASGIApp) -> httpx.Response:
    async def post() -> httpx.Response:
        (own,) = list_middlewares()
        transport = httpx.ASGITransport(own.cls(answer, *own.args, **own.kwargs))
        async with httpx.AsyncClient(transport=transport, base_url="http://ray") as client:
            return await client.post("/embed")

    return asyncio.run(post())


def test_a_refusal_of_ray_has_the_one_shape() -> None:
    answer = ask(PlainTextResponse("no room", 429, {"Retry-After": "2", "X-Request-ID": "mine"}))

    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "queue_full"
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers.get_list("X-Request-ID") == ["mine"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Retry-After": "Sat, 28 Nov 2026 12:00:00 GMT"},
        {"Retry-After": "2", "X-Content-Type-Options": "nosniff"},
    ],
)
def test_a_refusal_of_others_is_passed_on(headers: dict[str, str]) -> None:
    answer = ask(PlainTextResponse("theirs", 429, headers))

    assert (answer.status_code, answer.text) == (429, "theirs")


def test_of_two_request_ids_the_first_counts() -> None:
    response = PlainTextResponse("served")
    response.raw_headers += [(b"x-request-id", b"ours"), (b"x-request-id", b"of Ray")]

    answer = ask(response)

    assert answer.headers.get_list("X-Request-ID") == ["ours"]
