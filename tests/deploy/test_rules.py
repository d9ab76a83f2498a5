"""Rules and scrape configuration, as Debian's promtool reads them."""

import re

import pytest
import yaml  # type: ignore[import-untyped] # it brings no types

from tests.deploy.prometheus_server import scale_rules
from tests.deploy.tools import OBSERVABILITY, ROOT, run_tool

RULES = yaml.safe_load((OBSERVABILITY / "rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
CASE_FILES = [
    ROOT / "tests" / "deploy" / name for name in ("rules_test.yml", "rules_days_test.yml")
]
CASES = [case for file in CASE_FILES for case in yaml.safe_load(file.read_text())["tests"]]


def test_promtool_finds_no_fault_in_the_configuration() -> None:
    run_tool(
        "promtool",
        "check",
        "config",
        "--lint=all",
        "--lint-fatal",
        OBSERVABILITY / "prometheus.yml",
    )


def test_alerts_fire_and_clear_and_stay_silent_under_normal_load() -> None:
    run_tool("promtool", "test", "rules", *CASE_FILES)


def test_every_alert_has_a_case_in_which_it_fires_and_is_clear_later() -> None:
    fired, cleared = set(), set()
    for case in CASES:
        told: set[str] = set()
        for step in case["promql_expr_test"]:
            firing = {
                alert["alert"]
                for alert in ALERTS
                if any(
                    f'"{alert["alert"]}"' in sample["labels"]
                    for sample in step.get("exp_samples", [])
                )
            }
            cleared |= told - firing
            told |= firing
        fired |= told
    assert fired == {alert["alert"] for alert in ALERTS}
    assert cleared == fired


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_how_severe_it_is_and_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"].keys() == {"summary", "description"}


def test_durations_are_scaled_and_nothing_else() -> None:
    assert scale_rules("for: 2m\nexpr: rate(a[5m]) * 3600 > 10 # for 30 days, le=10.0") == (
        "for: 2s\nexpr: rate(a[5s]) * 3600 > 10 # for 30 days, le=10.0"
    )


def test_the_readme_lists_the_alerts() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \|", (ROOT / "deploy" / "README.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == {alert["alert"]: alert["labels"]["severity"] for alert in ALERTS}
