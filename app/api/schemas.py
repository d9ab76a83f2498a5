"""Request options and bodies, and the answers as /docs shows them."""

from typing import Annotated, Any, Literal

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


class ImageAnswer(BaseModel):
    """The image as decoded: upright size in pixels, and encoded format."""

    width: int = Field(examples=[4032])
    height: int = Field(examples=[3024])
    format: str = Field(examples=["JPEG"])


class Patches(BaseModel):
    """Patch vectors in row-major order of the grid; numbers, or base64 of them."""

    grid: tuple[int, int] = Field(description="Rows and columns.", examples=[(14, 14)])
    shape: tuple[int, int] = Field(description="Patches and dim.", examples=[(196, 768)])
    patch_size: int = Field(description="Pixels of the model's input.", examples=[16])
    input_size: tuple[int, int] = Field(
        description="Height and width that the whole image was resized to.", examples=[(224, 224)]
    )
    embedding: list[list[float]] | str


class ErrorDetail(BaseModel):
    """One failed image of a request."""

    index: int
    code: str = Field(examples=["image_truncated"])
    message: str = Field(examples=["image 1: the JPEG ends early"])


class ItemError(BaseModel):
    """Why one image has no vectors."""

    code: str = Field(examples=["image_truncated"])
    message: str = Field(examples=["image 1: the JPEG ends early"])


class EmbedItem(BaseModel):
    """One image's answer: vectors, or an error when on_error=partial."""

    index: int
    id: str | None = None
    embedding: list[float] | str | None = Field(
        None, description="The pooled vector; absent when output=patches."
    )
    image: ImageAnswer | None = None
    patches: Patches | None = Field(None, description="Absent when output=pooled.")
    warnings: list[str] | None = Field(None, examples=[["exif_rotated"]])
    error: ItemError | None = None


class Usage(BaseModel):
    """What the request cost."""

    images: int
    failed: int


class VectorsAnswer(BaseModel):
    """What holds for all vectors of an answer."""

    model: str = Field(examples=["google/siglip-base-patch16-224"])
    revision: str | None
    space: str = Field(
        description="Vectors are comparable when this is equal.",
        examples=["siglip-base-patch16-224:9f3c1a7be2d0"],
    )
    dim: int = Field(examples=[768])
    normalized: bool
    encoding: Literal["float", "base64"]
    dtype: Literal["float32", "float16"]


class EmbedAnswer(VectorsAnswer):
    """Answer of POST /embed; the same shape for one and for many images, in request order."""

    data: list[EmbedItem]
    usage: Usage


class EmbedTextItem(BaseModel):
    """One text's answer."""

    index: int
    id: str | None = None
    embedding: list[float] | str
    tokens: int = Field(description="Of the whole text, with the one that ends it.", examples=[6])
    warnings: list[str] = Field(examples=[["text_truncated"]])


class TextUsage(BaseModel):
    """What the request cost."""

    texts: int
    tokens: int


class EmbedTextAnswer(VectorsAnswer):
    """Answer of POST /embed/text, in request order."""

    text_space: str = Field(
        description="Changes with whatever gives a text another vector.",
        examples=["siglip-base-patch16-224:text:51c09ab2f1de"],
    )
    data: list[EmbedTextItem]
    usage: TextUsage


class ErrorBody(BaseModel):
    """The error inside an `ErrorAnswer`."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    code: str = Field(examples=["image_truncated"])
    param: str | None = Field(examples=["images[1]"])
    request_id: str | None
    details: list[ErrorDetail]


class ErrorAnswer(BaseModel):
    """Every error of the service has this shape."""

    error: ErrorBody


_REQUEST_ID = {"required": True, "schema": {"type": "string"}}
_RETRY_AFTER = {
    "description": "Seconds until it is worth another try.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}


# What connections and the guard answer, whatever the route.
_OF_ANY_ROUTE = (400, 408, 413, 415, 429, 431, 500, 503)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route for /openapi.json: its own, beside those of any route."""
    always = {"X-Request-ID": _REQUEST_ID}
    on_retry = always | {"Retry-After": _RETRY_AFTER}
    return {
        status: {"model": ErrorAnswer, "headers": on_retry if status in (429, 503) else always}
        for status in sorted({*statuses, *_OF_ANY_ROUTE})
    }
