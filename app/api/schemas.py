"""Request options and bodies."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_ID_LENGTH = 256

# A PNG of one pixel: examples can be sent as they are.
_GREY_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)

Output = Literal["pooled", "patches", "both"]


EXAMPLE_IMAGES = (f"data:image/png;base64,{_GREY_PIXEL}", {"id": "sku-1", "data": _GREY_PIXEL})
"""Images of a JSON body."""
EXAMPLE_TEXTS = ("a red bicycle", {"id": "q1", "text": "two cats in the snow"})
"""Texts of a JSON body."""


class VectorOptions(BaseModel):
    """Options of every route that gives vectors: query string, form field or JSON key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    normalize: bool = Field(
        True, description="L2-normalise the pooled vector; patch vectors stay raw."
    )
    encoding: Literal["float", "base64"] = Field(
        "float", description="JSON numbers, or base64 of little-endian values in C order."
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="float16 for base64 and binary answers only."
    )
    expect_space: str | None = Field(
        None, description="Refuse with 412 when the service's embedding space is another."
    )


class EmbedOptions(VectorOptions):
    """Options of POST /embed."""

    output: Output = Field(
        "pooled",
        description="Which vectors to return; a model without pooling head has patches only.",
    )
    on_error: Literal["fail", "partial"] = Field(
        "fail",
        description="fail: the first bad image fails the request; partial: bad images carry an "
        "error, good ones their vectors, and it is 200 also when all are bad. A binary answer has "
        "no place for errors: it is fail.",
    )


def is_url(text: str) -> bool:
    """Tell a URL from base64, and from a data URI, by its first characters."""
    return text[:8].lower().startswith(("http://", "https://"))


def _wrap_bare_text(value: object) -> object:
    """Make an item of a bare string: a URL can be told from base64, which has no colon."""
    if not isinstance(value, str):
        return value
    return {"url" if is_url(value) else "data": value}


def _wrap_bare_words(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("neither a string nor an object with text")  # noqa: TRY004 # pydantic's
    return {"text": value} if isinstance(value, str) else value


class ImageItem(BaseModel):
    """One image in a JSON body; exactly one of `data` and `url`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str | None = Field(None, max_length=MAX_ID_LENGTH, description="Echoed in the answer.")
    data: str | None = Field(None, description="base64, or a data URI.")
    url: str | None = Field(
        None,
        description="http or https, on a public host; only where the service has URL input on.",
        examples=["https://images.example.com/sku-2.jpg"],
    )

    @model_validator(mode="after")
    def _check_one_source(self) -> "ImageItem":
        if (self.data is None) == (self.url is None):
            raise ValueError("give exactly one of data and url")
        return self


class ImagesBody(BaseModel):
    """The images of a JSON body."""

    images: list[Annotated[ImageItem, BeforeValidator(_wrap_bare_text)]] = Field(
        description="base64 strings, data URIs, URLs, or objects with data or url and an optional "
        "id. URLs only where the service has URL input on, and at most 4 of them. Either this or "
        "`image` must be given.",
        examples=[list(EXAMPLE_IMAGES)],
    )


class EmbedBody(ImagesBody, EmbedOptions):
    """JSON body of POST /embed."""


class TextItem(BaseModel):
    """One text in a JSON body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str | None = Field(None, max_length=MAX_ID_LENGTH, description="Echoed in the answer.")
    text: str = Field(examples=["a red bicycle"])


class EmbedTextBody(VectorOptions):
    """JSON body of POST /embed/text."""

    texts: list[Annotated[TextItem, BeforeValidator(_wrap_bare_words)]] = Field(
        description="Strings, or objects with text and an optional id.",
        min_length=1,
        examples=[list(EXAMPLE_TEXTS)],
    )
