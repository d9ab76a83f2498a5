"""Commands that ask for Ray: what they refuse, and what they say where it is not installed."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from app.__main__ import cli

_WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from app.__main__ import cli; cli()"


@pytest.mark.parametrize(
    "arguments", [("serve", "--ray"), ("embed", "--ray", "images", "-o", "vectors")]
)
def test_without_ray_it_says_what_to_install(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", _WITHOUT_RAY, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert ended.returncode == 2
    assert ended.stderr == "--ray needs Ray, which is an extra: pip install '.[ray]'\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("serve", "--replicas", "2"), "--ray"),
        (("serve", "--gpus-per-replica", "0.5"), "--ray"),
        (("serve", "--ray", "--replicas", "0"), "--replicas"),
        (("serve", "--ray", "--replica", "2"), "--replica"),
        (("embed", "--ray", "-o", "vectors"), "--manifest"),
        (("embed", "--ray", "-o", "vectors", "--texts", "a.txt", "b"), "images"),
        (("embed", "a", "-o", "b.parquet", "--manifest", "m.txt"), "--ray"),
        (("embed", "a", "-o", "b.parquet", "--workers", "2"), "--ray"),
        (("embed", "a", "-o", "b.parquet", "--max-error-rate", "0"), "--ray"),
        (("embed", "a", "-o", "b.parquet", "--rows-per-file", "9"), "--ray"),
    ],
)
@pytest.mark.parametrize("port", ["8000", "wrong"])
def test_what_makes_no_sense_is_refused_whatever_the_settings(
    arguments: tuple[str, ...], reason: str, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("SIGLIP_PORT", port)

    ended = CliRunner().invoke(cli, arguments)

    assert ended.exit_code == 2
    assert reason in ended.stderr
