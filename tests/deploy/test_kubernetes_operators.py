"""Manifests of kinds that operators bring: KEDA's, the Gateway's, the Prometheus operator's.

kubernetes-validate has no schemas of theirs, so what matters is checked by hand.
"""

import yaml  # type: ignore[import-untyped] # it brings no types

from app.settings import Settings
from tests.deploy.manifests import build
from tests.deploy.tools import OBSERVABILITY


def test_the_gateway_waits_longer_than_the_service() -> None:
    timeout = build("gateway")["HTTPRoute"]["spec"]["rules"][0]["timeouts"]["request"]
    defaults = Settings()
    assert int(timeout.removesuffix("s")) > defaults.body_timeout_s + defaults.request_timeout_s


def test_the_scaled_object_asks_for_a_metric_of_the_service() -> None:
    scaled = build("keda")["ScaledObject"]
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    spec = scaled["spec"]
    assert spec["scaleTargetRef"] == {"name": "siglip-embed"}
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "Value")
    assert trigger["metadata"].keys() == {"serverAddress", "query", "threshold"}
    assert "siglip_queue_oldest_seconds" in trigger["metadata"]["query"]
    assert float(trigger["metadata"]["threshold"]) > 0


def test_the_gateway_balances_requests() -> None:
    route, policy = build("gateway")["HTTPRoute"], build("gateway")["BackendTrafficPolicy"]
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert policy["apiVersion"] == "gateway.envoyproxy.io/v1alpha1"
    assert policy["spec"] == {
        "targetRefs": [
            {
                "group": "gateway.networking.k8s.io",
                "kind": "HTTPRoute",
                "name": route["metadata"]["name"],
            }
        ],
        "loadBalancer": {"type": "LeastRequest"},
    }


def test_the_rules_of_the_cluster_are_those_of_prometheus() -> None:
    rule = build("monitoring")["PrometheusRule"]
    assert rule["apiVersion"] == build("monitoring")["ServiceMonitor"]["apiVersion"]
    assert rule["spec"] == yaml.safe_load((OBSERVABILITY / "rules.yml").read_text())
