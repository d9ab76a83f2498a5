"""A request to POST /v1/embeddings, of any client, read into one form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request

from app.api.context import ApiContext
from app.api.embeddings_body import EXAMPLE, Field, as_object, refuse_tokens, take_inputs
from app.api.embeddings_schemas import EmbeddingsOptions, InputItem, InputItems
from app.api.inputs import read_sources
from app.api.json_body import parse_json, refuse_unknown_names
from app.api.media_type import is_json, media_type_of
from app.api.models import require_model
from app.api.options import read_query, show_name, validate
from app.api.schemas import EmbedOptions, ImageItem, is_url
from app.api.text_inputs import is_too_large
from app.engine.preparing import ImageSource
from app.engine.protocol import ModelInfo
from app.engine.remote import RemoteImage
from app.errors import (
    DimensionsUnsupportedError,
    InvalidParameterError,
    TextTooLargeError,
    TooManyImagesError,
    TooManyTextsError,
    UnknownParameterError,
    UnsupportedMediaTypeError,
    UrlInputDisabledError,
)

_KEYS = ("input", "messages", *EmbeddingsOptions.model_fields)


@dataclass(frozen=True)
class EmbeddingsInput:
    """What a request asks for: options, its texts, its images, and where each of them was.

    `text_places` and `image_places` are the indices among the inputs, `field` what held these.
    Without `truncates`, a text with more tokens than the model sees is refused.
    """

    options: EmbedOptions
    truncates: bool
    field: Field
    texts: Sequence[str]
    text_places: Sequence[int]
    sources: Sequence[ImageSource | RemoteImage]
    image_places: Sequence[int]


async def read_embeddings_input(
    request: Request, context: ApiContext, info: ModelInfo
) -> EmbeddingsInput:
    """Read a request; raises an `InvalidRequestError`."""
    media_type = media_type_of(request)
    if not is_json(media_type):
        raise UnsupportedMediaTypeError("send JSON, with Content-Type: application/json")
    for name, _ in read_query(request.scope["query_string"]):
        raise UnknownParameterError(
            f"unknown parameter {show_name(name)}: options go into the JSON body",
            param=show_name(name),
        )
    content = _parse(await request.body(), context)
    field, raw = take_inputs(content)
    given = validate(EmbeddingsOptions, content)
    if given.model is not None:
        require_model(given.model, info.model)
    _check_dimensions(given, info)
    options = EmbedOptions(normalize=given.normalized is not False, encoding=_encoding(given))
    items = _read_items(field, [as_object(item, given.modality) for item in raw], context)
    texts = {i: item.text for i, item in enumerate(items) if item.text is not None}
    _check_texts(field, texts, context)
    images = {i: item.image_text for i, item in enumerate(items) if item.image_text is not None}
    return EmbeddingsInput(
        options,
        truncates=given.truncate not in (False, "NONE"),
        field=field,
        texts=[*texts.values()],
        text_places=[*texts],
        sources=_read_images(field, images, context),
        image_places=[*images],
    )


def _parse(body: bytes, context: ApiContext) -> dict[str, Any]:
    refuse_tokens(body)
    most = context.input_limits.max_images + context.text_limits.max_texts
    content = parse_json(body, most, EXAMPLE, holds_prose=True)
    refuse_unknown_names(content, _KEYS)
    return content


def _read_items(
    field: Field, items: list[dict[str, Any]], context: ApiContext
) -> Sequence[InputItem]:
    texts = sum(item.get("text") is not None for item in items)
    most_images, most_texts = context.input_limits.max_images, context.text_limits.max_texts
    if len(items) - texts > most_images:
        raise TooManyImagesError(
            f"more than {most_images} images in one request (SIGLIP_MAX_IMAGES)", param=field
        )
    if texts > most_texts:
        raise TooManyTextsError(
            f"more than {most_texts} texts in one request (SIGLIP_MAX_TEXTS); how many "
            "are sent, LangChain's chunk_size says, and the AI SDK's overrideMaxEmbeddingsPerCall",
            param=field,
        )
    for item in items:  # before validation, which makes an error of each
        refuse_unknown_names(item, [*InputItem.model_fields])
    parsed = validate(InputItems, {field: items})
    return parsed.messages if field == "messages" else parsed.input


def _check_dimensions(given: EmbeddingsOptions, info: ModelInfo) -> None:
    if given.dimensions not in (None, info.dim):
        raise DimensionsUnsupportedError(
            f"this model's vectors are of {info.dim} dimensions, and are not cut: ask for these, "
            "or for none",
            param="dimensions",
        )


def _encoding(given: EmbeddingsOptions) -> Literal["float", "base64"]:
    if None not in (given.encoding_format, given.embedding_type) and (
        given.encoding_format != given.embedding_type
    ):
        raise InvalidParameterError(
            "encoding_format and embedding_type are one option, given with two values",
            param="embedding_type",
        )
    return given.encoding_format or given.embedding_type or "float"


def _check_texts(field: Field, texts: dict[int, str], context: ApiContext) -> None:
    limits = context.text_limits
    for index, text in texts.items():
        if is_too_large(text, limits):
            raise TextTooLargeError(
                f"input {index} has more than {limits.max_text_bytes} bytes "
                "(SIGLIP_MAX_TEXT_BYTES)",
                param=f"{field}[{index}]",
            )


def _read_images(
    field: Field, images: dict[int, str], context: ApiContext
) -> Sequence[ImageSource | RemoteImage]:
    items = {
        f"{field}[{index}]": ImageItem(**{"url" if is_url(image) else "data": image})
        for index, image in images.items()
    }
    try:
        return read_sources(items, context.input_limits, context.fetcher)
    except UrlInputDisabledError as error:
        raise UrlInputDisabledError(
            f'{error.message}, or what is meant as a text as {{"text": ...}} or with modality text',
            param=(error.param or field).removesuffix(".url"),
        ) from None
