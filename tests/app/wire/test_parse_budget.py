"""How much is parsed in one turn of the event loop, counted in events of the parser."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest

from app.settings import Settings
from app.wire.chunks import CHUNKS_PER_EVENT
from app.wire.parse_budget import EVENTS_AT_ONCE, EVENTS_PER_TURN, QUEUED_PER_TURN, ParseBudget
from app.wire.parser import Parser
from tests.adversarial.raw_client import RawClient, connect, head
from tests.app.answers import check_error
from tests.app.fake_embedder import FakeEmbedder
from tests.app.service_server import ServiceServer, run_service

LIVEZ = head(method="GET", path="/livez")
CHUNKED = head("Transfer-Encoding: chunked")


def in_a_loop(budget: ParseBudget, count: int) -> list[int]:
    """Return the grants of one turn to so many connections, and let the turn end."""

    async def ask() -> list[int]:
        grants = [budget.grant() for _ in range(count)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return grants

    return asyncio.run(ask())


def test_all_connections_together_are_granted_no_more_than_a_turn_bears() -> None:
    budget = ParseBudget()
    many = 2 * EVENTS_PER_TURN // EVENTS_AT_ONCE

    for _ in range(2):  # and in the next turn as much again
        grants = in_a_loop(budget, many)
        assert grants[0] == EVENTS_AT_ONCE
        assert sum(grants) == EVENTS_PER_TURN


def test_those_who_wait_take_turns() -> None:
    budget = ParseBudget()
    taken: list[int] = []
    done = asyncio.Event()

    def take(number: int) -> None:
        taken.append(number)
        if len(taken) == 15:
            done.set()
        elif len(taken) <= 10:
            budget.queue(partial(take, number))

    async def queue() -> None:
        for number in range(5):
            budget.queue(partial(take, number))
        await asyncio.wait_for(done.wait(), 30)

    asyncio.run(queue())

    assert taken == 3 * [0, 1, 2, 3, 4]


def test_one_who_fails_does_not_keep_the_others_from_their_turn() -> None:
    budget = ParseBudget()
    done = asyncio.Event()

    def fail() -> None:
        raise RuntimeError("on purpose")

    async def queue() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        budget.queue(fail)
        budget.queue(done.set)
        await asyncio.wait_for(done.wait(), 30)

    asyncio.run(queue())


class _Counter:
    """The most events that any turn of the loop parsed, and how many there were in all."""

    def __init__(self) -> None:
        self.most = self.total = self._now = 0
        self._is_counting = False

    def count(self) -> None:
        self._now += 1
        self.total += 1
        self.most = max(self.most, self._now)
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._now, self._is_counting = 0, False


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> _Counter:
    counter, parse = _Counter(), Parser.next_event

    def count_and_parse(parser: Parser) -> object:
        event = parse(parser)
        if not isinstance(event, type):  # what says that there is none
            counter.count()
        return event

    monkeypatch.setattr(Parser, "next_event", count_and_parse)
    return counter


@pytest.fixture
def service(counter: _Counter) -> Iterator[ServiceServer]:
    assert not counter.total, "it counts from the start"
    with run_service(Settings(), FakeEmbedder()) as running:
        yield running


def test_a_flood_is_parsed_little_by_little(service: ServiceServer, counter: _Counter) -> None:
    """Eight connections at most arrive in one turn, and some go on in it."""
    flood = CHUNKED + (b"40\r\n" + bytes(64) + b"\r\n") * 2_000 + b"0\r\n\r\n"
    with connect(service.port, 8) as clients:
        for client in clients:
            client.send(flood)
        for client in clients:
            check_error(client.read_answer(), 415, "unsupported_image_format", "images[0]")

    assert counter.total >= 8 * 2_000 / CHUNKS_PER_EVENT
    assert counter.most <= 16 * EVENTS_AT_ONCE


def test_pipelined_requests_are_parsed_little_by_little(
    service: ServiceServer, counter: _Counter
) -> None:
    with connect(service.port, 32) as clients:
        for client in clients:
            client.send(50 * LIVEZ)
        assert {client.read_answer().status_code for client in clients} == {200}
        counter.most = 0  # all have arrived; from now on they wait for one another
        for client in clients:
            assert {client.read_answer().status_code for _ in range(49)} == {200}

    assert counter.most <= QUEUED_PER_TURN * EVENTS_AT_ONCE


def test_what_nobody_will_use_is_not_parsed(service: ServiceServer, counter: _Counter) -> None:
    """The answer ends the connection; the rest of the body is read and thrown away."""
    chunk = b"40\r\n" + bytes(64) + b"\r\n"
    for path in ("/no", "/livez"):
        before = counter.total
        with connect(service.port) as (client,):
            client.send(head("Transfer-Encoding: chunked", path=path))
            answer = client.read_answer()
            client.send(chunk * 50_000 + b"0\r\n\r\n")
            assert client.read_to_the_end() == b""

        assert answer.headers["connection"] == "close"
        assert counter.total - before < 10


def _send_both(client: RawClient, first: bytes, second: bytes) -> list[int]:
    client.send(first + second)
    return [client.read_answer("POST").status_code, client.read_answer().status_code]


def test_who_waits_for_its_turn_is_not_timed_out() -> None:
    """Nothing is read of it meanwhile, so nothing of it can arrive."""
    settings = Settings(head_timeout_s=0.25, body_timeout_s=0.25)
    with pytest.MonkeyPatch.context() as patch, run_service(settings, FakeEmbedder()) as service:
        patch.setattr(ParseBudget, "_begin", _late(ParseBudget._begin))
        with connect(service.port) as (client,):
            tiny = CHUNKED + b"1\r\na\r\n" * (2 * EVENTS_AT_ONCE * CHUNKS_PER_EVENT)

            assert _send_both(client, tiny + b"0\r\n\r\n", LIVEZ) == [415, 200]


def _late(begin: object) -> object:
    """Make turns that come only once in a second."""

    def begin_late(budget: ParseBudget) -> None:
        asyncio.get_running_loop().call_later(1, begin, budget)  # type: ignore[arg-type]

    return begin_late
