"""What a socket knows and the event loop has not told yet."""

import select
import socket


def has_unread(connection: socket.socket) -> bool:
    """Whether the peer has sent something, or its end, that nobody has read."""
    return _polls(connection, select.POLLIN)


def is_reset(connection: socket.socket) -> bool:
    """Whether the peer is gone, rather than silent."""
    return _polls(connection, 0)


def _polls(connection: socket.socket, events: int) -> bool:
    poll = select.poll()  # which tells of errors whatever it is asked
    poll.register(connection.fileno(), events)
    return bool(poll.poll(0))
