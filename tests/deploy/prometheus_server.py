"""Debian's Prometheus on loopback with our rules, in which a minute is a second."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml  # type: ignore[import-untyped] # it brings no types

from tests.deploy.tools import OBSERVABILITY, require_tool

_WAIT_S = 60
_POLL_S = 0.1
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SCALE = 60


def scale_duration(text: str) -> str:
    """Return a sixtieth of a duration, but a second at least."""
    seconds = int(text[:-1]) * _SECONDS[text[-1]]
    return f"{max(seconds // _SCALE, 1)}s"


def scale_rules(rules: str) -> str:
    """Shorten every `for` and every range of a file of rules; thresholds stay what they are."""
    duration = r"(\d+[smhd])"
    rules = re.sub(rf"(?<=\bfor: ){duration}", lambda found: scale_duration(found[1]), rules)
    return re.sub(rf"\[{duration}\]", lambda found: f"[{scale_duration(found[1])}]", rules)


@dataclass(frozen=True)
class PrometheusServer:
    """A running Prometheus."""

    client: httpx.Client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query."""
        answer = self.client.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, answer.text
        samples: list[dict[str, Any]] = answer.json()["data"]["result"]
        return samples

    def wait_until_seen(self, expression: str) -> None:
        """Wait until a query has a sample."""
        give_up_at = time.monotonic() + _WAIT_S
        while not self.query(expression):
            assert time.monotonic() < give_up_at, f"no {expression}"
            time.sleep(_POLL_S)

    def firing(self) -> dict[str, dict[str, str]]:
        """Return the annotations of the alerts that fire, by name."""
        alerts = self.client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {
            alert["labels"]["alertname"]: alert["annotations"]
            for alert in alerts
            if alert["state"] == "firing"
        }

    def wait_for(self, *alerts: str) -> None:
        """Wait until each of these has been seen to fire, and check what it says."""
        seen: dict[str, dict[str, str]] = {}
        give_up_at = time.monotonic() + _WAIT_S
        while not seen.keys() >= set(alerts):
            assert time.monotonic() < give_up_at, f"never {set(alerts) - seen.keys()}"
            time.sleep(_POLL_S)
            seen |= self.firing()
        for name, annotations in seen.items():
            assert annotations.keys() == {"summary", "description"}, name
            said = " ".join(annotations.values())
            assert "error expanding" not in said, said
            assert "<no value>" not in said, said

    def wait_until_clear(self, *alerts: str) -> None:
        """Wait until none of these fires."""
        give_up_at = time.monotonic() + _WAIT_S
        while firing := self.firing().keys() & set(alerts):
            assert time.monotonic() < give_up_at, f"{firing} do not clear"
            time.sleep(_POLL_S)


@contextmanager
def run_prometheus(folder: Path, port: int, target: str) -> Iterator[PrometheusServer]:
    """Scrape a target four times a second until the block ends."""
    config = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules.yml").write_text(scale_rules((OBSERVABILITY / "rules.yml").read_text()))
    command = [
        require_tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--query.lookback-delta=5s",
    ]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client,
    ):
        try:
            _wait_until_ready(client, process, folder / "prometheus.log")
            yield PrometheusServer(client)
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + _WAIT_S
    while time.monotonic() < give_up_at:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            if client.get("/-/ready").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"Prometheus is never ready: {log.read_text()}")
