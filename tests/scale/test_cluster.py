"""What each process gets of machines that are not here: their cores and GPUs are made up."""

import os
import subprocess
import sys

import pytest
import ray

from app.engine.protocol import StartError
from app.scale.cluster import Share, share_of
from tests.scale.replicas import REPOSITORY

Machine = dict[str, float]

LAPTOP: Machine = {"CPU": 8}
ONE_GPU: Machine = {"CPU": 16, "GPU": 1}
EIGHT_GPUS: Machine = {"CPU": 96, "GPU": 8}


def _pretend(machines: list[Machine], patch: pytest.MonkeyPatch) -> None:
    total = {
        name: sum(machine.get(name, 0) for machine in machines)
        for name in ("CPU", "GPU")
        if any(name in machine for machine in machines)
    }
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    patch.setattr(ray, "cluster_resources", lambda: total)
    patch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 1000}}])


@pytest.mark.parametrize(
    ("machines", "actors", "reserved", "share"),
    [
        ([LAPTOP], 1, 0, Share(8, 0)),
        ([LAPTOP], 3, 0, Share(2, 0)),
        ([LAPTOP], 2, 3, Share(2, 0)),
        ([LAPTOP, LAPTOP], 3, 0, Share(4, 0)),  # 5 each would be one on each machine
        ([ONE_GPU], 4, 0, Share(4, 0.25)),
        ([ONE_GPU], 3, 0, Share(5, 0.33)),
        ([EIGHT_GPUS], 8, 0, Share(12, 1)),
        ([EIGHT_GPUS], 10, 0, Share(9, 0.5)),
        ([ONE_GPU, ONE_GPU], 20, 0, Share(1, 0.1)),
    ],
)
def test_what_is_there_is_dealt_out_evenly(
    machines: list[Machine],
    actors: int,
    reserved: int,
    share: Share,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pretend(machines, monkeypatch)

    assert share_of(actors, None, None, reserved) == share


@pytest.mark.parametrize(
    ("machines", "actors", "cpus", "gpus", "reserved"),
    [
        ([LAPTOP], 9, None, None, 0),
        ([LAPTOP], 1, 9, None, 0),
        ([LAPTOP], 2, 4, None, 1),
        ([LAPTOP, LAPTOP], 1, 9, None, 0),  # no machine has as many
        ([LAPTOP], 1, 1, 0.5, 0),
        ([ONE_GPU], 2, 1, 0.6, 0),
        ([EIGHT_GPUS], 9, 1, 0.6, 0),
    ],
)
def test_what_has_no_room_is_refused(
    machines: list[Machine],
    actors: int,
    cpus: float | None,
    gpus: float | None,
    reserved: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pretend(machines, monkeypatch)

    with pytest.raises(StartError, match="there is no room"):
        share_of(actors, cpus, gpus, reserved)


def test_a_share_that_is_given_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend([ONE_GPU], monkeypatch)

    assert share_of(10, 0.5, 0.1) == Share(0.5, 0.1)


def test_without_a_home_for_its_token_ray_is_said_not_to_start() -> None:
    """As in a container whose user has none."""
    ended = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--ray"],
        env=os.environ | {"HOME": "/dev/null", "SIGLIP_TEXT": "off", "SIGLIP_PORT": "0"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 3
    assert "Ray does not answer" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
