"""An answer that is counted as long as it is in memory, which for slow readers may be long."""

from collections.abc import Mapping
from contextlib import ExitStack

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

_PIECE_BYTES = 2**20


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
