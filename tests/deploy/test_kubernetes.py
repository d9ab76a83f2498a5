"""The manifests as kubectl builds them: their schemas, and that they fit the service.

Nothing was ever applied to a cluster.
"""

import re

import kubernetes_validate  # type: ignore[import-untyped] # it brings no types
import pytest
import yaml  # type: ignore[import-untyped] # it brings no types

from app import __version__
from app.api import embed, health, metrics, models
from app.engine.lifecycle import _LAST_BATCH_S
from app.settings import Settings
from app.wire.server import _LAST_WORDS_S
from tests.deploy.manifests import OVERLAYS, Manifest, build
from tests.deploy.tools import ROOT

# The oldest that has all that is used, and one of today.
KUBERNETES_VERSIONS = ("1.25", "1.33")
LABELS = {"app.kubernetes.io/name": "siglip-embed"}


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    return build(f"overlays/{request.param}")


@pytest.fixture
def pod(manifests: dict[str, Manifest]) -> Manifest:
    template: Manifest = manifests["Deployment"]["spec"]["template"]["spec"]
    return template


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_manifest_is_of_its_schema(manifests: dict[str, Manifest], version: str) -> None:
    assert manifests.keys() >= {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    }
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_found(manifests: dict[str, Manifest]) -> None:
    service = manifests["Service"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            service | {"spec": service["spec"] | {"selectors": {}}}, "1.33", strict=True
        )


def test_every_setting_that_is_named_exists_and_takes_its_value(
    manifests: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in manifests["ConfigMap"]["data"].items():
        assert name.removeprefix("SIGLIP_").lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    Settings()


def test_every_setting_named_in_any_file_exists() -> None:
    known = {f"SIGLIP_{name.upper()}" for name in Settings.model_fields}
    files = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    files += [ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"]
    named = {
        name for file in files for name in re.findall(r"\bSIGLIP_[A-Z0-9_]+", file.read_text())
    }
    assert len(named) > len(known) / 2
    assert named <= known


def test_the_container_gets_its_settings_and_no_others(
    manifests: dict[str, Manifest], pod: Manifest, container: Manifest
) -> None:
    name = manifests["ConfigMap"]["metadata"]["name"]
    assert re.fullmatch(r"siglip-embed-[a-z0-9]{10}", name), "a change must change the name"
    assert container["envFrom"] == [{"configMapRef": {"name": name}}]
    assert {variable["name"] for variable in container["env"]} == {"OMP_NUM_THREADS", "HF_TOKEN"}
    assert pod["enableServiceLinks"] is False


def test_every_port_is_that_of_the_service(
    manifests: dict[str, Manifest], container: Manifest
) -> None:
    assert container["ports"] == [
        {"name": "http", "containerPort": Settings.model_fields["port"].default}
    ]
    (port,) = manifests["Service"]["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")
    (ingress,) = manifests["NetworkPolicy"]["spec"]["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": "http"}]
    (backend,) = build("gateway")["HTTPRoute"]["spec"]["rules"][0]["backendRefs"]
    assert (backend["name"], backend["port"]) == ("siglip-embed", port["port"])
    (endpoint,) = build("monitoring")["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]


def test_every_path_is_a_route_of_the_service(container: Manifest) -> None:
    probes = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")
    }
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/healthz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert {probe["port"] for probe in probes.values()} == {"http"}
    open_to_all = {route.path for route in health.router.routes}  # type: ignore[attr-defined]
    assert open_to_all >= {probe["path"] for probe in probes.values()}
    (endpoint,) = build("monitoring")["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["path"] in {route.path for route in metrics.router.routes}  # type: ignore[attr-defined]
    public = {
        route.path  # type: ignore[attr-defined]
        for router in (embed.router, models.router)
        for route in router.routes
    }
    matches = build("gateway")["HTTPRoute"]["spec"]["rules"][0]["matches"]
    prefixes = tuple(match["path"]["value"] for match in matches)
    assert all(path.startswith(prefixes) for path in public)
    assert all(any(path.startswith(prefix) for path in public) for prefix in prefixes)


def test_the_pod_has_time_to_drain(
    manifests: dict[str, Manifest], pod: Manifest, container: Manifest
) -> None:
    data = manifests["ConfigMap"]["data"]
    drain_s, grace_s = float(data["SIGLIP_DRAIN_DELAY_S"]), float(data["SIGLIP_GRACE_S"])
    needed_s = drain_s + grace_s + _LAST_WORDS_S + _LAST_BATCH_S
    assert pod["terminationGracePeriodSeconds"] > needed_s
    readiness = container["readinessProbe"]
    assert drain_s >= readiness["periodSeconds"] * readiness["failureThreshold"]


def test_the_pod_is_confined(pod: Manifest, container: Manifest) -> None:
    assert pod["automountServiceAccountToken"] is False
    own = pod["securityContext"]
    (uid,) = re.findall(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert own["runAsNonRoot"] is True
    assert own["runAsUser"] == own["runAsGroup"] == own["fsGroup"] == int(uid)
    assert own["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    forbidden = {"hostNetwork", "hostPID", "hostIPC", "initContainers", "serviceAccountName"}
    assert not forbidden & pod.keys()


def test_what_must_be_written_can_be_written(pod: Manifest, container: Manifest) -> None:
    """The folders that docker-compose.yml makes writable."""
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["siglip"]
    writable = {mount.partition(":")[2] for mount in service["volumes"]}
    writable |= {mount.partition(":")[0] for mount in service["tmpfs"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == writable
    named = {mount["name"] for mount in container["volumeMounts"]}
    assert named == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_one_pod_is_one_device_with_the_image_for_it(overlay: str) -> None:
    manifests = build(f"overlays/{overlay}")
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    settings, limits = manifests["ConfigMap"]["data"], container["resources"]["limits"]
    assert settings["SIGLIP_MODEL"] == Settings.model_fields["model"].default
    if overlay == "gpu":
        assert limits["nvidia.com/gpu"] == "1"
        assert settings["SIGLIP_DEVICE"] == "cuda"
        assert container["image"] == f"siglip-embed:{__version__}-cuda"
    else:
        assert "nvidia.com/gpu" not in limits
        assert container["image"] == f"siglip-embed:{__version__}"


def test_egress_is_names_and_public_https(manifests: dict[str, Manifest]) -> None:
    policy = manifests["NetworkPolicy"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    names, hub = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert hub["ports"] == [{"protocol": "TCP", "port": 443}]
    (public_v4, public_v6) = (peer["ipBlock"] for peer in hub["to"])
    assert public_v4["cidr"] == "0.0.0.0/0"
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(
        public_v4["except"]
    )
    assert {"fc00::/7", "fe80::/10"} <= set(public_v6["except"])


def test_everything_selects_the_pods(manifests: dict[str, Manifest]) -> None:
    deployment = manifests["Deployment"]["spec"]
    assert deployment["selector"]["matchLabels"] == LABELS
    assert deployment["template"]["metadata"]["labels"] == LABELS
    assert manifests["Service"]["spec"]["selector"] == LABELS
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == LABELS
    assert manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == LABELS
    for spread in deployment["template"]["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == LABELS
    monitor = build("monitoring")["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert monitor == manifests["Service"]["metadata"]["labels"]


def test_the_autoscaler_owns_the_number_of_pods() -> None:
    for overlay in OVERLAYS:
        assert "replicas" not in build(f"overlays/{overlay}")["Deployment"]["spec"]
    target = build("overlays/cpu")["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = build("overlays/cpu")["Deployment"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "HorizontalPodAutoscaler" not in build("overlays/gpu")
