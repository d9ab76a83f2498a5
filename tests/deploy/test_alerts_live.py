"""The service under load, scraped by a real Prometheus, as it starts, refuses, hangs and is lost.

What of the alerts takes hours, memory or several models is in rules_test.yml. Here a minute of the
rules is a second; ages and ratios are as they are.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.fake_embedder import RAISES
from tests.app.images import plain_png
from tests.deploy.prometheus_server import PrometheusServer, run_prometheus
from tests.deploy.supervised import SupervisedService, free_port, load_on, post
from tests.deploy.tools import OBSERVABILITY

DASHBOARD = OBSERVABILITY / "grafana" / "dashboards" / "siglip-embed.json"
ENGINE_LOST = 70


@pytest.fixture
def service(tmp_path: Path) -> Iterator[SupervisedService]:
    service = SupervisedService(tmp_path)
    try:
        yield service
    finally:
        service.close()


def see_a_slow_start(service: SupervisedService, prometheus: PrometheusServer) -> None:
    service.start(FAKE_HANGS_AT_LOAD="", FAKE_COSINE="0.9992")
    prometheus.wait_for("SiglipUnavailable", "SiglipNotReady")
    service.go_on()
    prometheus.wait_until_clear("SiglipUnavailable", "SiglipNotReady", "SiglipDown")
    prometheus.wait_for("SiglipSelfTestLow")


def see_it_lost_twice(service: SupervisedService, prometheus: PrometheusServer) -> None:
    assert service.lose_device() == ENGINE_LOST
    prometheus.wait_for("SiglipUnavailable", "SiglipDown")
    service.start()
    prometheus.wait_until_clear("SiglipUnavailable", "SiglipDown", "SiglipSelfTestLow")
    assert service.lose_device() == ENGINE_LOST
    service.start(FAKE_STALL_S="24", SIGLIP_QUEUE_IMAGES="6")
    prometheus.wait_for("SiglipRestarting")
    prometheus.wait_until_clear("SiglipUnavailable", "SiglipDown")


def see_it_hang(service: SupervisedService, prometheus: PrometheusServer) -> None:
    service.hang()
    prometheus.wait_for("SiglipRefusing", "SiglipQueueOld")
    prometheus.wait_for("SiglipUnavailable", "SiglipEngineStopped", "SiglipServerErrors")
    service.go_on()
    prometheus.wait_until_clear(
        "SiglipRefusing", "SiglipQueueOld", "SiglipUnavailable", "SiglipEngineStopped"
    )
    prometheus.wait_until_clear("SiglipServerErrors")


def see_it_fail(service: SupervisedService, prometheus: PrometheusServer) -> None:
    bad = plain_png((RAISES, 0, 0))
    while post(service.client, bad) != 500:
        pass
    # What Prometheus first sees of a counter is not counted as its increase.
    prometheus.wait_until_seen('siglip_requests_rejected_total{reason="internal"}')
    assert 500 in {post(service.client, bad) for _ in range(60)}
    prometheus.wait_for("SiglipServerErrors")
    (alert,) = prometheus.query('ALERTS{alertstate="firing", alertname="SiglipServerErrors"}')
    assert alert["metric"]["reason"] == "internal"
    prometheus.wait_until_clear("SiglipServerErrors")


def check_dashboard(prometheus: PrometheusServer) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > len(panels) > 10
    for query in queries:
        samples = prometheus.query(query.replace("$__rate_interval", "60s"))
        values = [float(sample["value"][1]) for sample in samples]
        assert [value for value in values if math.isfinite(value)], query


@pytest.mark.timeout(300)
def test_alerts_tell_what_happens_and_clear_when_it_is_over(
    service: SupervisedService, tmp_path: Path
) -> None:
    with run_prometheus(tmp_path, free_port(), f"127.0.0.1:{service.port}") as prometheus:
        see_a_slow_start(service, prometheus)
        see_it_lost_twice(service, prometheus)
        with load_on(service.client):
            see_it_hang(service, prometheus)
            see_it_fail(service, prometheus)
            check_dashboard(prometheus)
            prometheus.wait_until_clear("SiglipRestarting")
            # What the hour's budget has lost is not forgotten in this test's time.
            left = set(prometheus.firing())
            assert left <= {"SiglipErrorBudgetBurnsFast", "SiglipErrorBudgetBurnsSlowly"}
