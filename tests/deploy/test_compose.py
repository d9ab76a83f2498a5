"""The profile `observability` of docker-compose.yml, and what Grafana finds provisioned."""

import json
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it brings no types

from app.settings import Settings
from tests.deploy.tools import OBSERVABILITY, ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
GRAFANA = OBSERVABILITY / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "siglip-embed.json").read_text())


def mounts(service: str) -> dict[str, str]:
    """Return what is mounted from this repository, by where."""
    pairs = [mount.split(":") for mount in SERVICES[service]["volumes"]]
    return {pair[1]: pair[0] for pair in pairs if pair[0].startswith(".")}


def test_only_those_who_ask_for_it_get_it() -> None:
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    asked = ["observability"]
    assert profiles == {"siglip": None, "prometheus": asked, "grafana": asked}


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_it_is_for_this_machine_alone_and_confined(service: str) -> None:
    (port,) = SERVICES[service]["ports"]
    assert ":-127.0.0.1:" in port
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES[service]["mem_limit"]


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_what_is_mounted_exists(service: str) -> None:
    assert mounts(service)
    assert all((ROOT / source).exists() for source in mounts(service).values())


def test_prometheus_reads_what_is_mounted_and_scrapes_the_service() -> None:
    (config_flag, *_) = SERVICES["prometheus"]["command"]
    config = config_flag.removeprefix("--config.file=")
    assert mounts("prometheus")[config] == "./deploy/observability/prometheus.yml"
    content = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
    folder = config.rpartition("/")[0]
    assert {f"{folder}/{name}" for name in content["rule_files"]} <= mounts("prometheus").keys()
    (job,) = content["scrape_configs"]
    assert job["static_configs"] == [
        {"targets": [f"siglip:{Settings.model_fields['port'].default}"]}
    ]


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "siglip-embed.yml").read_text())[
        "providers"
    ]
    folder = provider["options"]["path"]
    assert (ROOT / mounts("grafana")[folder]).samefile(GRAFANA / "dashboards")
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/siglip-embed.json"


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    (variable,) = DASHBOARD["templating"]["list"]
    assert {panel["datasource"]["uid"] for panel in panels} == {f"${{{variable['name']}}}"}
