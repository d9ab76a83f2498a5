"""The three forms of a request to POST /embed, read into one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request

from app.api.multipart import read_form
from app.api.options import MAX_SHOWN_NAME, read_options, read_query, shown, validated
from app.api.schemas import MAX_ID_LENGTH, EmbedBody, EmbedOptions, ImageItem
from app.engine.preparing import ImageSource
from app.engine.remote import RemoteImage
from app.errors import (
    InvalidJsonError,
    InvalidParameterError,
    NoImagesError,
    TooManyImagesError,
    UnknownParameterError,
    UnsupportedMediaTypeError,
    UrlInputDisabledError,
)
from app.intake.base64_text import decode_base64
from app.intake.fetch import Fetcher

# Of an honest image: its braces, its keys, commas in its data URI and in its id.
_MAX_JSON_SEPARATORS_PER_IMAGE = 300
_MAX_URLS = 4


@dataclass(frozen=True)
class InputLimits:
    """Limits of one request: images, bytes of one image, bytes of the body."""

    max_images: int
    max_image_bytes: int
    max_body_bytes: int


@dataclass(frozen=True)
class EmbedInput:
    """What a request asks for: options, and per image its source and the caller's id."""

    options: EmbedOptions
    sources: Sequence[ImageSource | RemoteImage]
    ids: Sequence[str | None]


async def read_input(
    request: Request, limits: InputLimits, fetcher: Fetcher | None = None
) -> EmbedInput:
    """Read a request of any of the three forms; raises an `InvalidRequestError`.

    Without a `fetcher`, URLs are refused.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        embed_input = await _read_json(request, limits, fetcher)
    elif media_type == "multipart/form-data":
        embed_input = await _read_multipart(request, limits)
    elif media_type.startswith("image/") or media_type == "application/octet-stream":
        embed_input = await _read_raw(request)
    else:
        raise UnsupportedMediaTypeError(
            "send an image (image/* or application/octet-stream), multipart/form-data or "
            "application/json, and say which in Content-Type"
        )
    if not embed_input.sources:
        raise NoImagesError("the request holds no image")
    return embed_input


async def _read_raw(request: Request) -> EmbedInput:
    body = await request.body()
    return _of_files([body] if body else [], read_query(request.scope["query_string"]))


async def _read_multipart(request: Request, limits: InputLimits) -> EmbedInput:
    form = await read_form(request, limits.max_images, limits.max_body_bytes)
    # A browser sends the fields that nobody filled in, too.
    fields = [(name, value) for name, value in form.fields if value or name == "id"]
    return _of_files(form.files, [*read_query(request.scope["query_string"]), *fields])


def _of_files(files: Sequence[bytes], fields: Sequence[tuple[str, str]]) -> EmbedInput:
    """Take images as they are, and options and ids from fields."""
    ids = [value for name, value in fields if name == "id"]
    options = read_options([(name, value) for name, value in fields if name != "id"])
    ids = ids if any(ids) else []
    return EmbedInput(options, [_given(data) for data in files], _match_ids(ids, files))


def _given(data: bytes) -> ImageSource:
    """Make a source of bytes that are already here."""
    return lambda: data


async def _read_json(request: Request, limits: InputLimits, fetcher: Fetcher | None) -> EmbedInput:
    content = _parse_json(await request.body(), limits)
    query = read_query(request.scope["query_string"])
    if not content.get("images"):
        raise NoImagesError("the request holds no image", param="images")
    if isinstance(content["images"], list) and len(content["images"]) > limits.max_images:
        raise TooManyImagesError(f"more than {limits.max_images} images in one request")
    _refuse_long_names(content)
    parsed = validated(EmbedBody, content)
    given = parsed.model_dump(exclude={"images"}, exclude_unset=True, exclude_none=True)
    options = read_options([*query, *given.items()])
    if fetcher is not None and sum(item.url is not None for item in parsed.images) > _MAX_URLS:
        raise TooManyImagesError(f"more than {_MAX_URLS} URLs in one request")
    sources = [_json_source(i, item, limits, fetcher) for i, item in enumerate(parsed.images)]
    return EmbedInput(options, sources, [item.id for item in parsed.images])


def _parse_json(body: bytes, limits: InputLimits) -> dict[str, Any]:
    separators = sum(body.count(separator) for separator in (b",", b"[", b"{"))
    if separators > _MAX_JSON_SEPARATORS_PER_IMAGE * (limits.max_images + 1):
        # As Python objects they would take twenty times the body's memory, and seconds to make.
        raise InvalidJsonError("the body holds far too many values")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJsonError("the body is not valid JSON") from error
    if not isinstance(content, dict):
        raise InvalidJsonError("the body is not a JSON object")
    return content


def _refuse_long_names(content: dict[str, Any]) -> None:
    """Refuse names of megabytes, of which validation would make several copies."""
    images = content["images"] if isinstance(content["images"], list) else []
    for names in (content, *(item for item in images if isinstance(item, dict))):
        for name in names:
            if len(name) > MAX_SHOWN_NAME:
                raise UnknownParameterError(f"unknown parameter {shown(name)}", param=shown(name))


def _json_source(
    index: int, item: ImageItem, limits: InputLimits, fetcher: Fetcher | None
) -> ImageSource | RemoteImage:
    if item.data is not None:
        return partial(decode_base64, item.data, limits.max_image_bytes)
    if item.url is None or fetcher is None:
        raise UrlInputDisabledError("this service fetches no URLs", param=f"images[{index}].url")
    return RemoteImage(partial(fetcher.fetched, item.url))


def _match_ids(ids: Sequence[str], files: Sequence[bytes]) -> Sequence[str | None]:
    if ids and len(ids) != len(files):
        raise InvalidParameterError("give one id for every image, or none", param="id")
    if any(len(image_id) > MAX_ID_LENGTH for image_id in ids):
        raise InvalidParameterError(f"longer than {MAX_ID_LENGTH} characters", param="id")
    return ids or [None] * len(files)
