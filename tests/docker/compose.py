"""One Docker Compose project of our own: a unique name, a free port, an image of that name."""

import json
import os
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SERVICE = "siglip"


class Project:
    """docker-compose.yml as a user has it, with random weights in place of a download."""

    def __init__(self) -> None:
        self.image = f"siglip-embed-test-{uuid.uuid4().hex[:8]}"
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SIGLIP_")},
            "IMAGE": self.image,
            "SIGLIP_MODEL": "random:base-patch16-224",
            "SIGLIP_PORT": "127.0.0.1:0",  # any free port
        }

    def compose(self, *arguments: str) -> str:
        file = ROOT / "docker-compose.yml"
        command = ["docker", "compose", "--project-name", self.image, "--file", str(file)]
        return run([*command, *arguments], self._environment)

    def shell(self, script: str) -> str:
        """Run a script in the service's container, as the service's user."""
        return self.compose("exec", "-T", SERVICE, "sh", "-c", script)

    def url(self) -> str:
        return "http://" + self.compose("port", SERVICE, "8000").strip()

    def state(self) -> dict[str, Any]:
        """The engine's account of the container: Running, ExitCode, OOMKilled, Health."""
        container = self.compose("ps", "--all", "--quiet", SERVICE).strip()
        state: dict[str, Any] = json.loads(
            run(["docker", "inspect", "--format", "{{json .State}}", container])
        )
        return state

    def image_bytes(self) -> int:
        return int(run(["docker", "image", "inspect", "--format", "{{.Size}}", self.image]))

    def remove(self) -> None:
        """Remove the containers, the volume, the network and the image; leave the build cache."""
        self.compose("down", "--volumes", "--timeout", "5", "--rmi", "all")


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{(done.stdout + done.stderr)[-6000:]}"
    return done.stdout


def missing_part() -> str | None:
    """What keeps these tests from running here; None when Docker is usable."""
    needs = {
        "a Docker engine that answers": ["docker", "version", "--format", "{{.Server.Version}}"],
        "Compose v2": ["docker", "compose", "version"],
    }
    for need, command in needs.items():
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            return need
    return None
