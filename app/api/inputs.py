"""The three forms of a request with images, read into one."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from app.api.json_body import parse_json, refuse_long_names, refuse_unknown_names
from app.api.media_type import is_form, is_json, media_type_of, refuse_what_is_no_image
from app.api.multipart import read_form
from app.api.options import read_options, read_query, validate
from app.api.schemas import MAX_ID_LENGTH, EmbedOptions, ImageItem, ImagesBody
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
_MEMBER = re.compile(r"\[\d{0,9}\]$")
# So many short values of a list have as many commas and brackets as one image may have.
_VALUES_PER_ITEM = 50

Options = TypeVar("Options", bound=BaseModel)


@dataclass(frozen=True)
class InputLimits:
    """Limits of one request: images, bytes of one image, bytes of the body."""

    max_images: int
    max_image_bytes: int
    max_body_bytes: int


@dataclass(frozen=True)
class InputForm(Generic[Options]):
    """What a route takes beside images, and an example of its JSON."""

    options: type[Options]
    example: str
    lists: frozenset[str] = frozenset()
    """Options of many values: lists in JSON, else repeated."""
    most_values: int = 0
    """How many values those may have together."""
    check_json: Callable[[Mapping[str, Any]], None] = lambda _: None
    """Raises what is too much of them to be validated."""


@dataclass(frozen=True)
class ImageInput(Generic[Options]):
    """What a request asks for: options, and per image its source and the caller's id."""

    options: Options
    sources: Sequence[ImageSource | RemoteImage]
    ids: Sequence[str | None]


EMBED_FORM = InputForm(EmbedOptions, 'an image as base64: {"images": ["..."]}')
"""Of POST /embed."""


async def read_input(
    request: Request,
    form: InputForm[Options],
    limits: InputLimits,
    fetcher: Fetcher | None = None,
) -> ImageInput[Options]:
    """Read a request of any of the three forms; raises an `InvalidRequestError`.

    Without a `fetcher`, URLs are refused.
    """
    media_type = media_type_of(request)
    if is_json(media_type):
        return await _read_json(request, form, limits, fetcher)
    lists = form.lists | {"id"}
    fields = _gather(read_query(request.scope["query_string"]), lists)
    if is_form(media_type):
        parts = await read_form(request, limits.max_images, form.most_values)
        # A browser sends the fields that nobody filled in, too.
        fields += [(name, value) for name, value in _gather(parts.fields, lists) if value]
        return _of_files(parts.files, form, fields)
    body = await request.body()
    refuse_what_is_no_image(body, media_type)
    return _of_files([body] if body else [], form, fields)


def _gather(
    fields: Iterable[tuple[str, str]], lists: frozenset[str]
) -> list[tuple[str, str | list[str]]]:
    """Make one value of all those of a list, none of what nobody filled in."""
    gathered: dict[str, list[str]] = {}
    others: list[tuple[str, str | list[str]]] = []
    for name, value in fields:
        if (list_name := _MEMBER.sub("", name)) in lists:
            gathered.setdefault(list_name, []).append(value)
        else:
            others.append((name, value))
    return others + [(name, values) for name, values in gathered.items() if any(values)]


def _of_files(
    files: Sequence[bytes],
    form: InputForm[Options],
    fields: Sequence[tuple[str, str | list[str]]],
) -> ImageInput[Options]:
    """Take images as they are, and options and ids from fields."""
    ids = [image_id for name, values in fields if name == "id" for image_id in values]
    options = [(name, value) for name, value in fields if name != "id"]
    refuse_unknown_names((name for name, _ in options), (*form.options.model_fields, "id"))
    if not files:
        raise NoImagesError("the request holds no image")
    sources = [partial(bytes, data) for data in files]  # gives the same bytes, not a copy
    return ImageInput(read_options(form.options, options), sources, _match_ids(ids, files))


async def _read_json(
    request: Request, form: InputForm[Options], limits: InputLimits, fetcher: Fetcher | None
) -> ImageInput[Options]:
    body = await request.body()
    max_items = limits.max_images + form.most_values // _VALUES_PER_ITEM
    content = parse_json(body, max_items, form.example, holds_prose=bool(form.lists))
    query = _gather(read_query(request.scope["query_string"]), form.lists)
    known = ("images", "image", *form.options.model_fields)
    refuse_unknown_names((*content, *(name for name, _ in query)), known)
    images = _images_of(content)
    if not images:
        raise NoImagesError("the request holds no image", param="images")
    if isinstance(images, list) and len(images) > limits.max_images:
        raise TooManyImagesError(
            f"more than {limits.max_images} images in one request (SIGLIP_MAX_IMAGES)"
        )
    refuse_long_names(images)
    form.check_json(content)
    parsed = validate(ImagesBody, {"images": images})
    options = read_options(form.options, [*query, *content.items()])
    places = [f"images[{index}]" for index in range(len(parsed.images))]
    sources = read_sources(dict(zip(places, parsed.images, strict=True)), limits, fetcher)
    return ImageInput(options, sources, [item.id for item in parsed.images])


def _images_of(content: dict[str, Any]) -> object:
    """Take the images out of a body: `images`, or `image` for one, as forms have it."""
    if "image" not in content:
        return content.pop("images", None)
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
