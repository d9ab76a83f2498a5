"""Nothing that a caller sends is found in the log, however talkative the log is set to be."""

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from tests.adversarial.attack_files import MIB
from tests.adversarial.service_process import ServiceProcess, run_service_process
from tests.app.answers import post_images
from tests.app.images import encode, scene

KEY = "key-5d1f0c7e9b"
MARK = "mark-8a41c3d2f6"
"""Sent everywhere a caller can put something."""
FORGED = '\r\n{"level": "critical", "event": "forged"}\x1b[31m'


@pytest.fixture(scope="module", params=["json", "console"])
def service(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    _no_settings_from_outside: None,
) -> Iterator[ServiceProcess]:
    with run_service_process(
        tmp_path_factory.mktemp("service"),
        SIGLIP_LOG_LEVEL="debug",
        SIGLIP_LOG_FORMAT=request.param,
        SIGLIP_API_KEYS=KEY,
        SIGLIP_URL_INPUT="true",
    ) as process:
        process.client.headers["Authorization"] = f"Bearer {KEY}"
        yield process


def _png_full_of_marks() -> bytes:
    """Put marks where decoders look: texts, profile, Exif."""
    image = scene(0)
    exif = image.getexif()
    exif[0x010E] = MARK
    return encode(image, "PNG", exif=exif, icc_profile=MARK.encode() * 10)


def _bodies_full_of_marks() -> Iterator[dict[str, object]]:
    text = MARK + FORGED
    image = _png_full_of_marks()
    packed = base64.b64encode(image).decode()
    yield {"content": image, "params": {"id": text}, "headers": {"Content-Type": "image/png"}}
    yield {"content": MARK.encode(), "headers": {"Content-Type": "image/png"}}
    yield {"content": image, "headers": {"Content-Type": f"text/{MARK}"}}
    yield {"content": image[:-40] + MARK.encode(), "headers": {"Content-Type": "image/png"}}
    yield {"files": [("images", (text, image))], "data": {"id": text}}
    yield {"files": [(text, (text, image))], "data": {text: text}}
    yield {"content": f"--b\r\n{text}\r\n\r\n", "headers": _form_head()}
    yield {"content": MARK * 9, "headers": _form_head()}
    yield {"json": {"images": [{"id": text, "data": packed}]}}
    yield {"json": {"images": [{"id": text, "data": text}]}}
    yield {"json": {"images": [packed], text: text}}
    yield {"json": {"images": [packed], "output": text, "expect_space": text}}
    yield {"json": {"images": [{"url": f"http://user:{MARK}@{MARK}.invalid/{MARK}?{MARK}"}]}}
    yield {"json": {"images": [{"url": f"https://{MARK}.invalid/{MARK}"}]}}
    yield {"json": {"images": [f"http://127.0.0.1/{MARK}"]}}
    yield {"content": "{" + text, "headers": {"Content-Type": "application/json"}}


def _form_head() -> dict[str, str]:
    return {"Content-Type": "multipart/form-data; boundary=b"}


def _ask_with_marks(client: httpx.Client) -> list[int]:
    """Send marks in every place: -> the statuses of the answers."""
    answers = [client.post("/embed", **body) for body in _bodies_full_of_marks()]  # type: ignore[arg-type]
    odd_headers = {
        "X-Request-ID": f"{MARK} {MARK}",
        "Cookie": MARK,
        "User-Agent": MARK,
        "Referer": MARK,
        "Accept": MARK,
        "X-Request-Timeout-Ms": MARK,
        "X-Forwarded-For": MARK,
    }
    answers.append(post_images(client, "raw", [_png_full_of_marks()], headers=odd_headers))
    answers.append(client.get(f"/{MARK}/{quote(FORGED)}", params={MARK: MARK}))
    answers.append(client.get(f"/v1/models/{MARK}"))
    answers.append(client.get("/healthz", headers={"Authorization": f"Bearer {MARK}"}))
    answers.append(client.post("/embed", headers={"Authorization": f"Bearer {MARK}"}))
    answers.append(client.post("/embed", headers={"Authorization": f"Basic {MARK}"}))
    answers.append(client.post("/embed", content=MARK.encode() * MIB, headers=_form_head()))
    return [answer.status_code for answer in answers]


def test_nothing_that_was_sent_is_in_the_log(service: ServiceProcess) -> None:
    statuses = _ask_with_marks(service.client)

    assert max(statuses) < 500
    log = service.log.lower()
    assert log.count("/embed") > 10, "the log is there"
    for secret in (KEY, MARK):
        for form in (secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
            assert form.lower() not in log
    assert "forged" not in log
    assert "python_multipart" not in log, "it names bytes of a form, in a warning for each"
    assert "\x1b" not in log
    if log.startswith("{"):
        assert all(json.loads(line)["event"] for line in log.splitlines())
