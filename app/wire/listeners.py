"""Sockets to listen on: opened before anything is loaded, so that a port in use is told at once."""

import errno
import socket
from typing import Any

from app.engine.protocol import StartError

# As uvicorn and asyncio have it when they open sockets themselves.
_BACKLOG = 2048
# A machine without IPv6, whose names may lead to such addresses all the same.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of a host that this machine has; raises `StartError`.

    From then on clients can connect, and wait until somebody accepts them.
    """
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in _resolve(host, port):
            try:
                listeners.append(_listen(family, address))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
        if missing is not None and not listeners:
            raise missing
    except (OSError, UnicodeError) as error:  # of the latter kind is a name too long to be one
        for listener in listeners:
            listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(f"cannot listen on {_spell(host, port)}: {reason.lower()}") from None
    return listeners


def url_of(listener: socket.socket) -> str:
    """Return where a listener can be reached."""
    host, port = listener.getsockname()[:2]
    return f"http://{_spell(host, port)}"


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    """Return the addresses of a host, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen(family: socket.AddressFamily, address: Any) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections that the last process has left behind do not hold the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # else :: would take the port of IPv4 as well
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)  # two sockets may be bound to one port, but only one may listen
    except OSError:
        listener.close()
        raise
    return listener


def _spell(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
