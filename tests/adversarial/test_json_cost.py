"""JSON made to be dear: what a body costs until it is refused, or read, is in proportion to it."""

import time
from collections.abc import Iterator

import pytest

from app.settings import Settings
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import FakeTextEmbedder
from tests.app.service_server import ServiceServer, run_service

MIB = 2**20
# Each takes a third of a second. Strings looked for from every quote would take hours.
MAX_CPU_S = 10.0
SEPARATORS = b"," * 100_000
BODIES = {
    "a string without an end": SEPARATORS + b'"' + rb"\"" * (15 * MIB),
    "backslashes without an end": SEPARATORS + b'"' + b"\\" * (30 * MIB),
    "quotes": SEPARATORS + b'"' * (30 * MIB),
    "empty strings": b'{"input": [""' + b',""' * (10 * MIB) + b"]}",
    "commas": b"," * (31 * MIB),
    "objects": b'{"input": [{}' + b",{}" * 47_000 + b"]}",
    "names": b'{"input": [{"a":1' + b',"a%d":1' * 90_000 % (*range(90_000),) + b"}]}",
    "names at the top": b'{"a":1' + b',"a%d":1' * 90_000 % (*range(90_000),) + b"}",
    "numbers": b'{"input": [' + b"1," * (15 * MIB) + b"1]}",
    "white space": b'{"input": [' + b" " * (31 * MIB),
    "inputs": b'"input"' * (4 * MIB),
    "a text": b'{"input": "' + b"a," * (15 * MIB) + b'"}',
    "a text of escapes": b'{"input": "' + rb"\"," * (10 * MIB) + b'"}',
    "brackets": b'{"input": ' + b"[" * 90_000,
    "an image": b'{"input": "data:image/png;base64,' + b"A" * (31 * MIB) + b'"}',
}


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    with run_service(Settings(), FakeEmbedder(), texts=FakeTextEmbedder()) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed/text", "/embed"])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_megabytes_is_refused_soon(service: ServiceServer, path: str, name: str) -> None:
    body = BODIES[name]
    started = time.process_time()
    answer = service.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert time.process_time() - started < MAX_CPU_S
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]["code"] != "internal"
