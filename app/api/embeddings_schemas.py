"""What POST /v1/embeddings takes and answers: OpenAI's shapes, and what others send there."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

_SOURCES = ("text", "image", "url", "bytes", "image_url", "image_base64")


def _refuse_number(value: object) -> object:
    """Refuse 0 and 1, which equal false and true."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("a number is not what is asked for")  # noqa: TRY004 # a ValidationError's
    return value


# Described in words that generators of clients understand: none knows an enum of two types.
_NULL = {"type": "null"}
_Truncate = Annotated[
    Literal[True, False, "END", "NONE"] | None,
    BeforeValidator(_refuse_number),
    WithJsonSchema(
        {"oneOf": [{"type": "boolean"}, {"type": "string", "enum": ["END", "NONE"]}, _NULL]}
    ),
]
_Padding = Annotated[
    Literal[True, "max_length"] | None,
    BeforeValidator(_refuse_number),
    WithJsonSchema({"oneOf": [{"const": True}, {"type": "string", "enum": ["max_length"]}, _NULL]}),
]
_LateChunking = Annotated[
    Literal[False] | None,
    BeforeValidator(_refuse_number),
    WithJsonSchema({"oneOf": [{"const": False}, _NULL]}),
]


def _unwrap_url(value: object) -> object:
    """Take {"url": ...}, as chats have it, for the URL; images are of one detail here."""
    if not isinstance(value, dict):
        return value
    if not value.keys() <= {"url", "detail"} or value.get("detail") not in (None, "auto"):
        raise ValueError('give a URL, or {"url": ...} with no detail but auto')
    return value.get("url")


class InputItem(BaseModel):
    """One input as an object: exactly one text or image, and its `type` where it has one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["text", "image_url", "image_base64"] = "text"
    text: str | None = None
    image: str | None = None
    url: str | None = None
    bytes: str | None = None
    image_url: Annotated[str | None, BeforeValidator(_unwrap_url)] = None
    image_base64: str | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> "InputItem":
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SOURCES)}")
        if "type" in self.model_fields_set and self.type not in given:
            raise ValueError(f"an input of type {self.type} has {self.type}")
        return self

    @property
    def image_text(self) -> str | None:
        """What stands for the image, if it is one: base64, a data URI or a URL."""
        images = (self.image, self.url, self.bytes, self.image_url, self.image_base64)
        return next((image for image in images if image is not None), None)


class InputItems(BaseModel):
    """The inputs of a body, under the name that they came by."""

    input: list[InputItem] = []
    messages: list[InputItem] = []


class EmbeddingsOptions(BaseModel):
    """What a body has beside its inputs; null counts as not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str | None = Field(
        None, description="The served model, or the last part of its name, or nothing."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="JSON numbers (the default), or base64 of little-endian float32."
    )
    embedding_type: Literal["float", "base64"] | None = Field(
        None, description="The same, as Jina's clients name it."
    )
    modality: Literal["text", "image"] | None = Field(
        None,
        description="What strings are. text: all but data URIs are texts, also URLs; image: all "
        "are images. If not given, data URIs and URLs are images.",
    )
    dimensions: int | None = Field(None, description="The model's own: none are cut off.")
    normalized: bool | None = Field(None, description="L2-normalise the vectors: the default.")
    truncate: _Truncate = Field(
        None,
        description="Take a text's first tokens where it has more than the model sees (the "
        "default), or refuse it: false, NONE.",
    )
    task: Literal["retrieval", "retrieval.query", "retrieval.passage", "text-matching"] | None = (
        Field(None, description="One kind of vector serves all of these.")
    )
    input_type: (
        Literal["query", "passage", "document", "search_query", "search_document"] | None
    ) = Field(None, description="The same.")
    padding: _Padding = Field(
        None, description="Texts are padded to full length, as the model was trained."
    )
    late_chunking: _LateChunking = None
    user: str | None = Field(None, description="Not used.")


class Embedding(BaseModel):
    """The vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class TokenUsage(BaseModel):
    """Tokens of all texts; images have none."""

    prompt_tokens: int = Field(examples=[6])
    total_tokens: int = Field(examples=[6])


class EmbeddingList(BaseModel):
    """Answer of POST /v1/embeddings, in request order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = Field(examples=["google/siglip-base-patch16-224"])
    usage: TokenUsage
