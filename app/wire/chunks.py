"""A chunked request body, read by h11's parser in place of its own reader.

h11 makes an event of every chunk, 15 microseconds each however few bytes it carries, and bounds
neither extensions nor trailers. Here one event is several chunks, and what is not data may outweigh
the data by a fixed amount only.
"""

import re

import h11
from h11._receivebuffer import ReceiveBuffer

# Chunks, or lines of a trailer, that one event is made of at most.
CHUNKS_PER_EVENT = 8
# A chunk costs about as much as so many bytes of data, besides its extension.
BYTES_PER_CHUNK = 64
# By how many bytes chunks may outweigh data: honest clients' are short now and then, not always.
MAX_SURPLUS_BYTES = 64 * 2**10

_MAX_LINE_BYTES = 4 * 2**10
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\r\n\0]*)?\r\n")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n")
_END_OF_LINE = b"\r\n"


class ChunkedBody:
    """Reads a chunked body from h11's buffer; trailers are dropped, as are extensions.

    Raises `h11.LocalProtocolError`, which the parser turns into the peer's fault.
    """

    def __init__(self) -> None:
        self._left_bytes = 0  # of the chunk in hand
        self._in_trailer = False
        self._at_chunk_end = False
        self._surplus_bytes = 0

    def __call__(self, buffer: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        """Return the next event, or None when more must arrive for it."""
        pieces: list[bytearray] = []
        for _ in range(CHUNKS_PER_EVENT):
            piece = None if self._in_trailer else self._next_piece(buffer)
            if piece is None:
                break
            pieces.append(piece)
        if self._in_trailer and not pieces:
            return self._read_trailer(buffer)
        return h11.Data(data=b"".join(pieces)) if pieces else None

    def _read_trailer(self, buffer: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        for _ in range(CHUNKS_PER_EVENT):
            line = _next_line(buffer)
            if line is None:
                return None
            if line == _END_OF_LINE:
                return h11.EndOfMessage()
            if _TRAILER_LINE.fullmatch(line) is None:
                raise h11.LocalProtocolError("a trailer that is no header")
            self._count(BYTES_PER_CHUNK + len(line))
        return h11.Data(data=b"")  # not the end yet, and nothing to wait for

    def _next_piece(self, buffer: ReceiveBuffer) -> bytearray | None:
        """Take what has arrived of the chunk in hand, or of the next one."""
        if not self._left_bytes and not self._begin_chunk(buffer):
            return None
        piece = buffer.maybe_extract_at_most(self._left_bytes)
        if piece is not None:
            self._left_bytes -= len(piece)
            self._at_chunk_end = not self._left_bytes
        return piece

    def _begin_chunk(self, buffer: ReceiveBuffer) -> bool:
        """Read the line with a chunk's size: whether there is one, and data after it."""
        if self._at_chunk_end:
            line = _next_line(buffer)
            if line is None:
                return False
            if line != _END_OF_LINE:
                raise h11.LocalProtocolError("a chunk is longer than it said")
            self._at_chunk_end = False
        line = _next_line(buffer)
        if line is None:
            return False
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise h11.LocalProtocolError("a chunk without a size")
        self._left_bytes = int(match[1], 16)
        self._in_trailer = not self._left_bytes
        self._count(BYTES_PER_CHUNK + len(match[2] or b""))
        self._surplus_bytes -= self._left_bytes
        return not self._in_trailer

    def _count(self, overhead_bytes: int) -> None:
        self._surplus_bytes += overhead_bytes
        if self._surplus_bytes > MAX_SURPLUS_BYTES:
            raise h11.LocalProtocolError("far more chunks, extensions or trailers than data")


def _next_line(buffer: ReceiveBuffer) -> bytearray | None:
    line = buffer.maybe_extract_next_line()
    if line is None and len(buffer) > _MAX_LINE_BYTES:
        raise h11.LocalProtocolError("a line without an end")
    return line
