"""Hostile JSON and forms over HTTP: each gets its own answer, and costs no more than its size."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.adversarial.attack_files import MIB
from tests.adversarial.service_process import ServiceProcess, run_service_process
from tests.app.answers import check_error, embeddings, post_images
from tests.app.images import encode, scene

HONEST = encode(scene(0))
ALMOST_THE_LARGEST_BODY = 32 * MIB - 10_000
# Of honest bodies this large the service needs a tenth of a second; of the worst it took 2.7 s.
MAX_CPU_S = 1.0
# A body is held as chunks and as one piece; parsed, it may not take several times as much.
COPIES_OF_BODY = 3
MAX_PEAK_BYTES = 64 * MIB


@dataclass(frozen=True)
class BodyAttack:
    """A hostile body, and the refusal that is due to it; status 200 has no code."""

    make: Callable[[], bytes]
    status: int
    code: str | None = None
    param: str | None = None


def _flood(part: bytes) -> bytes:
    return part * (ALMOST_THE_LARGEST_BODY // len(part))


def _part(content: bytes, head: bytes = b'name="images"; filename="a"') -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n"


def _base64_attack(text: bytes, status: int = 400, code: str = "invalid_base64") -> BodyAttack:
    return BodyAttack(lambda: b'{"images":["%s"]}' % text, status, code, "images[0]")


END = b"--b--\r\n"

JSON_ATTACKS = {
    "millions of lists": BodyAttack(
        lambda: b'{"images":[' + _flood(b"[],") + b"1]}", 400, "invalid_json"
    ),
    "millions of objects": BodyAttack(
        lambda: b'{"images":[' + _flood(b"{},") + b"1]}", 400, "invalid_json"
    ),
    "millions of numbers": BodyAttack(
        lambda: b'{"images":[' + _flood(b"1,") + b"1]}", 400, "invalid_json"
    ),
    "millions of keys": BodyAttack(
        lambda: b"{" + b",".join(b'"%d":1' % i for i in range(2_000_000)) + b"}",
        400,
        "invalid_json",
    ),
    "deep lists": BodyAttack(lambda: b"[" * 10_000 + b"]" * 10_000, 400, "invalid_json"),
    "deeper lists": BodyAttack(lambda: _flood(b"["), 400, "invalid_json"),
    "a list 2000 deep for an image": BodyAttack(
        lambda: b'{"images":' + b"[" * 2_000 + b"]" * 2_000 + b"}", 400, "invalid_json"
    ),
    "a number of a million digits": BodyAttack(
        lambda: b'{"images":["AAAA"],"normalize":' + b"9" * MIB + b"}", 400, "invalid_json"
    ),
    "a surrogate": BodyAttack(lambda: b'{"images":["\\ud800"]}', 400, "invalid_json"),
    "not a number": BodyAttack(lambda: b'{"images":["AAAA"],"normalize":NaN}', 400, "invalid_json"),
    "bytes that are no text": BodyAttack(lambda: b'{"images":["\xff"]}', 400, "invalid_json"),
    "a key of 30 MB": BodyAttack(
        lambda: b'{"' + _flood(b"a")[:-100] + b'":1,"images":["AAAA"]}',
        400,
        "unknown_parameter",
        "a" * 64,
    ),
    "a key of 30 MB inside an image": BodyAttack(
        lambda: b'{"images":[{"' + _flood(b"a")[:-100] + b'":1}]}',
        400,
        "unknown_parameter",
        "a" * 64,
    ),
    "an option of 30 MB": BodyAttack(
        lambda: b'{"images":["AAAA"],"output":"' + _flood(b"a")[:-100] + b'"}',
        400,
        "invalid_parameter",
        "output",
    ),
    "an image of 30 MB of nothing": BodyAttack(
        lambda: b'{"images":["' + _flood(b"A") + b'"]}', 413, "image_too_large", "images[0]"
    ),
    "an image of 24 MB of line ends": _base64_attack(
        b"\\n" * (12 * MIB), 415, "unsupported_image_format"
    ),
    "an image of 24 MB of spaces": _base64_attack(
        b" " * (24 * MIB), 415, "unsupported_image_format"
    ),
    "an image of 24 MB of padding": _base64_attack(b"=" * (24 * MIB)),
    "an image of 24 MB of nothing but wrong characters": _base64_attack(b"!" * (24 * MIB)),
    "an image of 24 MB that is wrong at its end": _base64_attack(b"A -_" * (6 * MIB) + b"!"),
    "an image of 24 MB with a hole in its middle": _base64_attack(
        b"A" * (12 * MIB) + b"=" * (12 * MIB) + b"A"
    ),
}

FORM_ATTACKS = {
    "a thousand images": BodyAttack(lambda: _part(HONEST) * 1_000 + END, 413, "too_many_images"),
    "a hundred thousand fields": BodyAttack(
        lambda: _part(b"", b'name="id"') * 100_000 + END, 400, "invalid_multipart"
    ),
    "an image of 30 MB that is a field": BodyAttack(
        lambda: _part(_flood(b"a")[:-1_000], b'name="images"') + END,
        400,
        "invalid_parameter",
        "images",
    ),
    "a field of 30 MB": BodyAttack(
        lambda: _part(_flood(b"a")[:-1_000], b'name="output"') + END, 400, "invalid_multipart"
    ),
    "a part of millions of headers": BodyAttack(
        lambda: b"--b\r\n" + _flood(b"a:b\r\n"), 400, "invalid_multipart"
    ),
    "a header of 30 MB": BodyAttack(lambda: b"--b\r\nA: " + _flood(b"a"), 400, "invalid_multipart"),
    "30 MB of line ends in front": BodyAttack(
        lambda: _flood(b"\r\n")[:-20_000] + _part(HONEST) + END, 200
    ),
    "30 MB of junk in front": BodyAttack(
        lambda: _flood(b"x")[:-20_000] + b"\r\n" + _part(HONEST) + END, 200
    ),
    "30 MB of almost boundaries in front": BodyAttack(
        lambda: _flood(b"\n--")[:-20_000] + b"\r\n" + _part(HONEST) + END, 200
    ),
    "30 MB that never come to a boundary": BodyAttack(
        lambda: _flood(b"\n--"), 400, "invalid_multipart"
    ),
    "30 MB of junk behind": BodyAttack(lambda: _part(HONEST) + END + _flood(b"x")[:-20_000], 200),
    "30 MB of boundaries behind": BodyAttack(
        lambda: _part(HONEST) + END + _flood(b"\r\n--b")[:-20_000], 400, "invalid_multipart"
    ),
    "30 MB of boundaries that go on": BodyAttack(
        lambda: _part(_flood(b"\r\n--bX")[:-20_000]) + END, 400, "invalid_multipart"
    ),
    "an image of almost boundaries": BodyAttack(
        lambda: _part((b"\r\n--" * (5 * MIB))[: 19 * MIB]) + END,
        415,
        "unsupported_image_format",
        "images[0]",
    ),
    "an image without a file name": BodyAttack(
        lambda: _part(b"a", b'name="images"') + END, 400, "invalid_parameter", "images"
    ),
    "a file name that leads elsewhere": BodyAttack(
        lambda: _part(HONEST, b'name="images"; filename="../../etc/passwd"') + END, 200
    ),
    "a part that never ends": BodyAttack(lambda: _part(HONEST), 400, "invalid_multipart"),
    "nothing": BodyAttack(lambda: END, 400, "no_images"),
}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, _no_settings_from_outside: None
) -> Iterator[ServiceProcess]:
    with run_service_process(tmp_path_factory.mktemp("service")) as process:
        post_images(process.client, "raw", [HONEST])
        yield process


@pytest.mark.parametrize("name", JSON_ATTACKS)
def test_hostile_json_gets_its_answer_and_costs_little(service: ServiceProcess, name: str) -> None:
    _attack(service, JSON_ATTACKS[name], "application/json")


@pytest.mark.parametrize("name", FORM_ATTACKS)
def test_a_hostile_form_gets_its_answer_and_costs_little(
    service: ServiceProcess, name: str
) -> None:
    _attack(service, FORM_ATTACKS[name], "multipart/form-data; boundary=b")


def _attack(service: ServiceProcess, attack: BodyAttack, content_type: str) -> None:
    body = attack.make()

    def send() -> httpx.Response:
        return service.client.post("/embed", content=body, headers={"Content-Type": content_type})

    answer, cost = service.cost_of(send)

    if attack.code is None:
        embeddings(answer)
    else:
        check_error(answer, attack.status, attack.code, attack.param)
        assert len(answer.content) < 1_000, "an answer does not repeat what was sent"
    assert cost.cpu_s < MAX_CPU_S
    assert cost.peak_bytes < MAX_PEAK_BYTES + COPIES_OF_BODY * len(body)
    assert json.loads(service.client.get("/healthz").content)["status"] == "ok"
