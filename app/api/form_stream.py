"""The body of a form on its way to the parser: less its preamble, and bounded."""

from collections.abc import AsyncGenerator

from app.errors import InvalidMultipartError


async def without_floods(
    stream: AsyncGenerator[bytes, None], boundary: bytes, max_boundaries: int
) -> AsyncGenerator[bytes, None]:
    """Pass a body on, unless it is full of what looks like boundaries."""
    boundaries = 0
    async for chunk in stream:
        boundaries += chunk.count(b"\r\n--" + boundary)
        if boundaries > max_boundaries:
            raise InvalidMultipartError("the form holds far too many boundaries")
        yield chunk


async def from_first_boundary(
    stream: AsyncGenerator[bytes, None], boundary: bytes
) -> AsyncGenerator[bytes, None]:
    """Pass a body on from its first boundary, without its preamble (RFC 2046, section 5.1.1)."""
    line = b"\n--" + boundary
    tail = b"\n"  # the first boundary may be the first line
    async for chunk in stream:
        tail += chunk
        start = tail.find(line)
        if start >= 0:
            yield tail[start + 1 :]
            break
        tail = tail[1 - len(line) :]
    else:
        raise InvalidMultipartError(
            "the form has no such boundary as its Content-Type names: let the client set the header"
        )
    async for chunk in stream:
        yield chunk
