"""Texts that are meant to break: right vectors or a refusal in our shape, and nothing in a log."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.api.json_body import parse_json
from app.errors import InvalidJsonError
from app.settings import Settings
from tests.app.service_server import ServiceServer, run_service
from tests.text_reference import Generation, write_full_checkpoint
from tests.tokenizer_files import (
    SPECIAL_TOKENS,
    train_bpe,
    write_siglip2_tokenizer,
    write_siglip_tokenizer,
)

MAX_CPU_S = 5.0

HOSTILE = {
    "nothing": "",
    "NUL": "a\0b",
    "control characters": "".join(map(chr, range(32))),
    "one combining mark": "a" + "\u0301" * 4000,
    "right-to-left overrides": "\u202egnp.exe\u202c" * 300,
    "isolates": "\u2066\u2067\u2068\u2069" * 600,
    "zero width": "\u200b\u200d\ufeff" * 900,
    "special tokens": " ".join(SPECIAL_TOKENS) * 50,
    "byte tokens": "<0x00><0xFF>" * 200,
    "one letter": "a" * 8192,
    "emoji of many parts": "👨\u200d👩\u200d👧\u200d👦" * 300,
    "every plane": "".join(chr(0x10000 * plane + 0xFFFD) for plane in range(17)),
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "word starts": "▁" * 2700,
    "JSON": '{"texts": [' * 700,
}


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a checkpoint with both towers, of either generation."""
    generation: Generation = request.param
    folder: Path = tmp_path_factory.mktemp(generation)
    if generation == "siglip":
        write_siglip_tokenizer(folder)
        write_full_checkpoint(folder, generation, vocab_size=400)
    else:
        write_siglip2_tokenizer(folder, train_bpe())
        write_full_checkpoint(folder, generation, vocab_size=2000)
    return Settings(model=str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[ServiceServer]:
    with run_service(settings) as running:
        running.wait_for_status("ok")
        yield running


def post(service: ServiceServer, content: bytes) -> httpx.Response:
    return service.client.post(
        "/embed/text", content=content, headers={"Content-Type": "application/json"}
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_has_a_vector_and_harms_no_neighbour(
    service: ServiceServer, name: str
) -> None:
    plain = post(service, json.dumps({"texts": ["a plain text"]}).encode()).json()["data"][0]

    answer = post(service, json.dumps({"texts": [HOSTILE[name], "a plain text"]}).encode())

    assert answer.status_code == 200, answer.text[:300]
    hostile, neighbour = answer.json()["data"]
    assert np.linalg.norm(hostile["embedding"]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(neighbour["embedding"], plain["embedding"], atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"texts": ["a"] * 100_000}),
        json.dumps({"texts": ["a" * 3_000_000]}),
        json.dumps({"texts": ["[{,"] * 100_000}),
        '{"texts": [' + "{}," * 1_000_000 + "{}]}",
        '{"texts": [' * 100_000,
        '{"texts": ["\\ud800"]}',
        json.dumps({"texts": [["a"]]}),
        json.dumps({"texts": [{"text": "a", "x" * 100_000: 1}]}),
        json.dumps({"texts": ["a"], "encoding": "x" * 100_000}),
    ],
    ids=lambda body: body[:30],
)
def test_what_is_too_much_is_refused_in_our_shape(service: ServiceServer, body: str) -> None:
    answer = post(service, body.encode())

    assert 400 <= answer.status_code < 500
    assert len(answer.json()["error"]["message"]) < 300


def test_nothing_of_a_text_is_logged(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    # Of its own: what is logged after the last answer, too, is logged when it has ended.
    with run_service(settings) as service:
        service.wait_for_status("ok")
        for text in ("hush hush", "hush" * 5000, "\u202ehush"):
            post(service, json.dumps({"texts": [text]}).encode())
        post(service, b'{"texts": ["hush')

    captured = capfd.readouterr()
    assert "hush" not in captured.out + captured.err


@pytest.mark.parametrize(
    "text", ["," * 6_000_000, "," * 80_000 + '\\"' * 3_000_000], ids=["commas", "escaped quotes"]
)
def test_a_string_of_megabytes_costs_in_proportion(text: str) -> None:
    """Takes a twentieth of a second. Looking for an end from each of its quotes takes a day."""
    started = time.process_time()
    with pytest.raises(InvalidJsonError):
        parse_json(f'{{"text": "{text}'.encode(), 256, "texts", holds_prose=True)
    assert time.process_time() - started < MAX_CPU_S
