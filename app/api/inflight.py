"""The bytes of all request bodies, or of all large answers, in memory at one time."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.errors import MemoryFullError

_RETRY_AFTER_S = 1
_PIECE_BYTES = 2**20


class InflightBytes:
    """A budget that requests draw on as their bodies arrive; for one event loop.

    What counts of a body is what has arrived, not what was announced: otherwise a few connections
    that announce much and send little would keep everybody out.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.used = 0

    def has_room(self, announced_bytes: int) -> bool:
        """Tell whether a body of that size would fit now; the only body always does."""
        return not self.used or self.used + announced_bytes <= self._limit

    def take(self, arrived_bytes: int) -> None:
        """Count bytes that have arrived, or raise `MemoryFullError`."""
        if arrived_bytes and not self.has_room(arrived_bytes):
            raise self.full()
        self.used += arrived_bytes

    def give_back(self, arrived_bytes: int) -> None:
        """Count bytes of a request that is over."""
        self.used -= arrived_bytes

    @contextmanager
    def hold(self, answer_bytes: int) -> Iterator[None]:
        """Count an answer of at most that size as long as it is made and sent.

        Raises `MemoryFullError`.
        """
        self.take(answer_bytes)
        try:
            yield
        finally:
            self.give_back(answer_bytes)

    @staticmethod
    def full() -> MemoryFullError:
        """Make the error that says so."""
        return MemoryFullError(
            "too many bytes are in flight (SIGLIP_INFLIGHT_BYTES)", retry_after_s=_RETRY_AFTER_S
        )


class HeldAnswer(Response):
    """Lets go of what is `held` when the answer has been sent; a large one goes piece by piece.

    As one piece it would count as sent while nearly all of it waits in the connection.
    """

    def __init__(
        self, content: bytes, headers: Mapping[str, str], media_type: str, held: ExitStack
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; of a large one nearly all has been read then, or its client is gone."""

        async def send_in_pieces(message: Message) -> None:
            if message["type"] == "http.response.body" and len(self.body) > _PIECE_BYTES:
                view = memoryview(self.body)
                for at in range(0, len(view), _PIECE_BYTES):
                    piece = view[at : at + _PIECE_BYTES]
                    await send({"type": message["type"], "body": piece, "more_body": True})
                message = {"type": message["type"]}  # waits for the piece before it
            await send(message)

        with self._held:
            await super().__call__(scope, receive, send_in_pieces)
