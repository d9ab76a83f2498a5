"""The limit of open files, in processes of their own: a hard limit can only be lowered."""

import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys
from app.wire.open_files import allow_connections
from app.observe.logs import configure_logs

soft, hard, connections = map(int, sys.argv[1:])
configure_logs("info", "json")
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
allow_connections(connections)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "allowed", "warned"),
    [
        (128, 1000, 500, 756, False),
        (900, 1000, 500, 900, False),
        (128, 700, 500, 700, True),
    ],
)
def test_connections_get_their_files_as_far_as_the_system_lets(
    soft: int, hard: int, connections: int, allowed: int, warned: bool
) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(soft), str(hard), str(connections)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert shown.splitlines()[-1] == f"({allowed}, {hard})"
    assert ("too few open files" in shown) == warned
