"""Rules and scrape configuration, as Debian's promtool reads them."""

import pytest
import yaml  # type: ignore[import-untyped] # it brings no types

from tests.deploy.prometheus_server import scale_rules
from tests.deploy.tools import OBSERVABILITY, ROOT, run_tool

RULES = yaml.safe_load((OBSERVABILITY / "rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
CASES = yaml.safe_load((ROOT / "tests" / "deploy" / "rules_test.yml").read_text())["tests"]


def test_promtool_finds_no_fault_in_the_configuration() -> None:
    run_tool(
        "promtool",
        "check",
        "config",
        "--lint=all",
        "--lint-fatal",
        OBSERVABILITY / "prometheus.yml",
    )


@pytest.mark.timeout(120)
def test_alerts_fire_and_clear_and_stay_silent_under_normal_load() -> None:
    run_tool("promtool", "test", "rules", ROOT / "tests" / "deploy" / "rules_test.yml")


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
