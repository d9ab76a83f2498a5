"""The form of an answer, chosen by what the client accepts (RFC 9110, section 12.5.1)."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from app.errors import NotAcceptableError

AnswerForm = Literal["json", "npy", "octet-stream"]

# Clients are of few kinds, and ask in the same words each time.
_REMEMBERED = 16

_FORMS: tuple[tuple[str, AnswerForm], ...] = (  # the first wins a tie
    ("application/json", "json"),
    ("application/x-npy", "npy"),
    ("application/octet-stream", "octet-stream"),
)


def pick_form(accept_headers: Iterable[str]) -> AnswerForm:
    """Choose the answer's form; without a header any will do.

    Raises `NotAcceptableError`.
    """
    return _pick_form(",".join(accept_headers) or "*/*")


@lru_cache(_REMEMBERED)
def _pick_form(accept: str) -> AnswerForm:
    qualities: dict[str, float] = {}
    for entry in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = _quality(parameters)
        media_range = "*/*" if media_range == "*" else media_range  # as Java's own client writes it
        # To rule out one version of JSON is not to rule out ours: parameters before the q narrow.
        if quality > 0 or not parameters or parameters[0].startswith("q="):
            qualities[media_range] = quality

    def quality_of(media_type: str) -> float:
        ranges = (media_type, "application/*", "*/*")  # the most specific one decides
        return next((qualities[name] for name in ranges if name in qualities), 0.0)

    media_type, form = max(_FORMS, key=lambda offer: quality_of(offer[0]))
    if quality_of(media_type) <= 0:
        raise NotAcceptableError(
            "answers are application/json, application/x-npy or application/octet-stream"
        )
    return form


def _quality(parameters: Sequence[str]) -> float:
    pairs = (parameter.partition("=") for parameter in parameters)
    given = next((value for name, _, value in pairs if name == "q"), "1")
    try:
        return float(given)
    except ValueError:
        return 0.0
