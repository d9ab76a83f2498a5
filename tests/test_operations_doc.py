"""docs/operations.md: what it names exists, and what there is it names."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it brings no types
from prometheus_client.parser import text_string_to_metric_families

from app import exit_codes
from app.errors import ServiceError
from app.settings import Settings
from app.wire.server import _KEEP_ALIVE_S
from benchmarks import sizing
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import FakeTextEmbedder
from tests.app.service_server import run_service

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
SETTINGS = {
    f"SIGLIP_{name.upper()}": field.default for name, field in Settings.model_fields.items()
}


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, re.M | re.S)
    return str(found)


def test_every_setting_is_in_its_section_and_no_other() -> None:
    assert set(re.findall(r"SIGLIP_[A-Z_0-9]+", section("What the settings do"))) == SETTINGS.keys()
    assert set(re.findall(r"SIGLIP_[A-Z_0-9]+", DOCUMENT)) <= SETTINGS.keys()


def test_every_metric_is_explained() -> None:
    with run_service(Settings(), FakeEmbedder(), texts=FakeTextEmbedder()) as service:
        families = list(text_string_to_metric_families(service.client.get("/metrics").text))
    shown = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if not family.name.startswith(("process_", "python_"))
    }

    assert set(re.findall(r"`((?:siglip|http)_\w+)`", section("Metrics"))) == shown


def test_every_alert_has_a_remedy() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "observability" / "rules.yml").read_text())
    alerts = {
        rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule
    }

    assert set(re.findall(r"`(Siglip[A-Z]\w+)`", section("Alerts"))) == alerts


def _statuses(kind: type[Any]) -> Iterator[tuple[int, str]]:
    for one in kind.__subclasses__():
        if hasattr(one, "code") and hasattr(one, "status"):
            yield one.status, one.code
        yield from _statuses(one)


def test_codes_have_their_statuses() -> None:
    known = set(_statuses(ServiceError))
    said = re.findall(r"^\| (\d{3}) `(\w+)`", section("At night"), re.M)

    assert len(said) > 6
    assert {(int(status), code) for status, code in said} <= known


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        (r"under (\d+) s: 60 s", _KEEP_ALIVE_S),
        (r"exit code (\d)", exit_codes.BAD_SETTINGS),
        (r"its model with (\d)", exit_codes.START_FAILED),
        (r"ends with (\d\d)", exit_codes.ENGINE_LOST),
        (r"`SIGLIP_DRAIN_DELAY_S` \((\d+);", SETTINGS["SIGLIP_DRAIN_DELAY_S"]),
        (r"has `SIGLIP_GRACE_S` \((\d+)\)", SETTINGS["SIGLIP_GRACE_S"]),
        (r"over (\d+) s \(`SIGLIP_REQUEST_TIMEOUT_S`", SETTINGS["SIGLIP_REQUEST_TIMEOUT_S"]),
        (r"(\d+) MiB \(`SIGLIP_MAX_BODY_BYTES`", SETTINGS["SIGLIP_MAX_BODY_BYTES"] / 2**20),
        (r"`SIGLIP_INFLIGHT_BYTES` twice \((\d+) MiB", SETTINGS["SIGLIP_INFLIGHT_BYTES"] / 2**20),
        (r"`SIGLIP_DECODE_MEMORY` \((\d+) GiB", SETTINGS["SIGLIP_DECODE_MEMORY"] / 2**30),
    ],
)
def test_numbers_are_those_of_the_service(sentence: str, value: float) -> None:
    (found,) = re.findall(sentence, " ".join(DOCUMENT.split()))

    assert float(found) == value


def test_supervisors_wait_for_the_end() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    waits = compose["services"]["siglip"]["stop_grace_period"]
    deployment = (ROOT / "deploy" / "kubernetes" / "base" / "deployment.yaml").read_text()
    (in_kubernetes,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", deployment)

    assert (
        f"{waits.removesuffix('s')} s in docker-compose.yml, {in_kubernetes} in Kubernetes"
        in " ".join(DOCUMENT.split())
    )


def test_models_of_every_size_are_measured() -> None:
    rows = re.findall(r"^\| (\S+-patch\S+) \|(?: [\d.]+ \|){5}$", section("Sizing"), re.M)

    assert tuple(rows) == sizing._SHAPES


def test_every_code_of_a_server_fault_is_in_the_table_that_the_alerts_send_to() -> None:
    """Also the row of two codes."""
    rows = re.findall(r"^\| \d{3} ([^|]+) \|", section("At night"), re.M)
    named = {code for row in rows for code in re.findall(r"`(\w+)`", row)}

    assert {code for status, code in _statuses(ServiceError) if status >= 500} <= named
