"""A public internet on loopback: names, addresses, and servers that say what they are told to."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpcore

from app.intake.network import SystemLookup

PUBLIC = "93.184.215.14"
PUBLIC_V6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"

Answer = Callable[[socket.socket], None]

_WAIT_S = 10


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> Answer:
    """Send one whole answer, whose Content-Length may lie."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    message = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    return lambda connection: connection.sendall(message)


def redirect(location: str, status: str = "302 Found", *headers: str) -> Answer:
    """Send the client elsewhere."""
    return answer(b"", f"Location: {location}", *headers, status=status)


@dataclass
class Origin:
    """An HTTP server on loopback: answers by path, and remembers the heads of all requests."""

    answers: dict[str, Answer] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    port: int = 0
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def hang(self, connection: socket.socket) -> None:
        """Say nothing until the client leaves, which `left` then counts."""
        connection.settimeout(_WAIT_S)
        with suppress(ConnectionError):
            if connection.recv(1) == b"":
                self.left.release()

    def serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65_536)
            if not data:
                return
            head += data
        self.heads.append(head)
        path = head.split(b" ", 2)[1].decode("latin-1")
        with suppress(ConnectionError):
            self.answers[path](connection)


@contextmanager
def run_origin(tls: ssl.SSLContext | None = None) -> Iterator[Origin]:
    """Serve on a free loopback port until the block ends."""
    origin = Origin()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(ssl.SSLError, ConnectionError):
                if tls is None:
                    origin.serve(self.request)
                else:
                    with tls.wrap_socket(self.request, server_side=True) as connection:
                        origin.serve(connection)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        origin.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield origin
        finally:
            server.shutdown()
            thread.join(_WAIT_S)


class Names:
    """A resolver: names from a table, spellings of numbers from the system, nothing else.

    A name's answers may be lists in a row, one a lookup; the last one stays.
    """

    def __init__(self) -> None:
        self.table: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._system = SystemLookup()

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host in self.table:
            answers = self.table[host]
            return answers.pop(0) if len(answers) > 1 else answers[0]
        if set(host) <= set("0123456789abcdefx.:"):
            return await self._system(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class _Labelled(httpcore.AsyncNetworkStream):
    """A connection to loopback that says it leads to a public address, and counts what it reads."""

    def __init__(self, inner: httpcore.AsyncNetworkStream, network: "Internet", peer: str) -> None:
        self._inner = inner
        self._network = network
        self._peer = peer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = await self._inner.read(max_bytes, timeout)
        self._network.bytes_read += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        self._network.tls_names.append(server_hostname)
        if not self._network.real_tls:
            return self
        secured = await self._inner.start_tls(ssl_context, server_hostname, timeout)
        return _Labelled(secured, self._network, self._peer)

    def get_extra_info(self, info: str) -> Any:
        if info == "server_addr":
            return (self._peer, 0)
        return None if info == "ssl_object" else self._inner.get_extra_info(info)


class Internet(httpcore.AsyncNetworkBackend):
    """Leads every connection to one loopback port, and remembers where each was meant to go.

    `peers` are what connections to an address say their other end is, where it is not that address.
    Without `real_tls`, what should be encrypted is not, so that any origin can be an https one.
    """

    def __init__(self, port: int, *, real_tls: bool = False) -> None:
        self.port = port
        self.real_tls = real_tls
        self.dialled: list[tuple[str, int]] = []
        self.tls_names: list[str | None] = []
        self.bytes_read = 0
        self.dead: set[str] = set()
        self.peers: dict[str, str] = {}
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.dialled.append((host, port))
        if host in self.dead:
            raise httpcore.ConnectError
        stream = await self._network.connect_tcp(
            "127.0.0.1", self.port, timeout, local_address, socket_options
        )
        return _Labelled(stream, self, self.peers.get(host, host))
