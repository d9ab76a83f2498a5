"""Answers and errors as /docs shows them."""

from typing import Any, Literal

from pydantic import BaseModel, Field


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
