"""The three forms of a request to POST /embed, read into one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request

from app.api.json_body import parse_json, refuse_long_names, refuse_unknown_names
from app.api.media_type import is_form, is_json, refuse_what_is_no_image
from app.api.multipart import read_form
from app.api.options import read_options, read_query, validate
from app.api.schemas import MAX_ID_LENGTH, EmbedBody, EmbedOptions, ImageItem
from app.engine.preparing import ImageSource
from app.engine.remote import RemoteImage
from app.errors import (
    InvalidParameterError,
    NoImagesError,
    TooManyImagesError,
    UrlInputDisabledError,
)
from app.intake.base64_text import decode_base64
from app.intake.fetch import Fetcher

_MAX_URLS = 4
# As axios and others name the members of a list, too.
_ID_FIELD = re.compile(r"id(\[\d{0,9}\])?")
_FIELDS = (*EmbedOptions.model_fields, "id")
_JSON_KEYS = ("images", "image", *EmbedOptions.model_fields)


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
    if is_json(media_type):
        return await _read_json(request, limits, fetcher)
    query = read_query(request.scope["query_string"])
    if is_form(media_type):
        form = await read_form(request, limits.max_images)
        # A browser sends the fields that nobody filled in, too.
        fields = [
            (name, value) for name, value in form.fields if value or _ID_FIELD.fullmatch(name)
        ]
        return _of_files(form.files, [*query, *fields])
    body = await request.body()
    refuse_what_is_no_image(body, media_type)
    return _of_files([body] if body else [], query)


def _of_files(files: Sequence[bytes], fields: Sequence[tuple[str, str]]) -> EmbedInput:
    """Take images as they are, and options and ids from fields."""
    ids = [value for name, value in fields if _ID_FIELD.fullmatch(name)]
    options = [(name, value) for name, value in fields if not _ID_FIELD.fullmatch(name)]
    refuse_unknown_names((name for name, _ in options), _FIELDS)
    if not files:
        raise NoImagesError("the request holds no image")
    ids = ids if any(ids) else []
    sources = [partial(bytes, data) for data in files]  # gives the same bytes, not a copy
    return EmbedInput(read_options(EmbedOptions, options), sources, _match_ids(ids, files))


async def _read_json(request: Request, limits: InputLimits, fetcher: Fetcher | None) -> EmbedInput:
    body = await request.body()
    content = parse_json(body, limits.max_images, 'an image as base64: {"images": ["..."]}')
    query = read_query(request.scope["query_string"])
    refuse_unknown_names((*content, *(name for name, _ in query)), _JSON_KEYS)
    images = content["images"] = _images_of(content)
    if not images:
        raise NoImagesError("the request holds no image", param="images")
    if isinstance(images, list) and len(images) > limits.max_images:
        raise TooManyImagesError(
            f"more than {limits.max_images} images in one request (SIGLIP_MAX_IMAGES)"
        )
    refuse_long_names(images)
    parsed = validate(EmbedBody, content)
    given = parsed.model_dump(exclude={"images"}, exclude_unset=True, exclude_none=True)
    options = read_options(EmbedOptions, [*query, *given.items()])
    places = [f"images[{index}]" for index in range(len(parsed.images))]
    sources = read_sources(dict(zip(places, parsed.images, strict=True)), limits, fetcher)
    return EmbedInput(options, sources, [item.id for item in parsed.images])


def _images_of(content: dict[str, Any]) -> object:
    """Take the images out of a body: `images`, or `image` for one, as forms have it."""
    if "image" not in content:
        return content.get("images")
    image = content.pop("image")
    if "images" in content:
        raise InvalidParameterError("give image or images, not both", param="image")
    return image if isinstance(image, list) or not image else [image]


def read_sources(
    images: Mapping[str, ImageItem], limits: InputLimits, fetcher: Fetcher | None
) -> list[ImageSource | RemoteImage]:
    """Return what gives the bytes of images, which are by their places in a JSON body.

    Raises `UrlInputDisabledError` or `TooManyImagesError`.
    """
    if fetcher is not None and sum(item.url is not None for item in images.values()) > _MAX_URLS:
        raise TooManyImagesError(f"more than {_MAX_URLS} URLs in one request")
    return [_json_source(place, item, limits, fetcher) for place, item in images.items()]


def _json_source(
    place: str, item: ImageItem, limits: InputLimits, fetcher: Fetcher | None
) -> ImageSource | RemoteImage:
    if item.data is not None:
        return partial(decode_base64, item.data, limits.max_image_bytes)
    if item.url is None or fetcher is None:
        raise UrlInputDisabledError(
            "this service fetches no URLs (SIGLIP_URL_INPUT); send the image itself",
            param=f"{place}.url",
        )
    return RemoteImage(partial(fetcher.fetch, item.url))


def _match_ids(ids: Sequence[str], files: Sequence[bytes]) -> Sequence[str | None]:
    if ids and len(ids) != len(files):
        raise InvalidParameterError("give one id for every image, or none", param="id")
    if any(len(image_id) > MAX_ID_LENGTH for image_id in ids):
        raise InvalidParameterError(f"longer than {MAX_ID_LENGTH} characters", param="id")
    return ids or [None] * len(files)
