"""What kubectl makes of the folders of deploy/kubernetes."""

from functools import cache
from typing import Any

import yaml  # type: ignore[import-untyped] # it brings no types

from tests.deploy.tools import KUBERNETES, run_tool

OVERLAYS = ("cpu", "gpu", "shared-weights")

Manifest = dict[str, Any]


@cache
def build(folder: str) -> dict[str, Manifest]:
    """Return what a folder's kustomization makes, by kind."""
    built = run_tool("kubectl", "kustomize", KUBERNETES / folder)
    manifests = [manifest for manifest in yaml.safe_load_all(built) if manifest]
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    assert len(by_kind) == len(manifests)
    return by_kind
