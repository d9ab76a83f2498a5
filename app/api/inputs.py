"""The three forms of a request to POST /embed, read into one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.api.schemas import MAX_ID_LENGTH, EmbedBody, EmbedOptions, ImageItem
from app.engine.remote import RemoteImage
from app.engine.service import ImageSource
from app.errors import (
    InvalidJsonError,
    InvalidMultipartError,
    InvalidParameterError,
    InvalidRequestError,
    NoImagesError,
    TooManyImagesError,
    UnknownParameterError,
    UnsupportedMediaTypeError,
    UrlInputDisabledError,
)
from app.intake.base64_text import decode_base64
from app.intake.fetch import Fetcher

_FILE_FIELDS = frozenset({"images", "image", "files", "file"})
_MAX_FORM_FIELDS = 128
_MAX_FORM_FIELD_BYTES = 64 * 2**10
# Of an honest image: its braces, its keys, commas in its data URI and in its id.
_MAX_JSON_SEPARATORS_PER_IMAGE = 300
_MAX_URLS = 4
_MAX_SHOWN_NAME = 64

Model = TypeVar("Model", bound=BaseModel)


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


def _too_many_images(limits: InputLimits) -> TooManyImagesError:
    return TooManyImagesError(f"more than {limits.max_images} images in one request")


def _given(data: bytes) -> ImageSource:
    """Make a source of bytes that are already here."""
    return lambda: data


async def _read_raw(request: Request) -> EmbedInput:
    fields = list(request.query_params.multi_items())
    ids = [value for name, value in fields if name == "id"]
    options = _options(fields)
    body = await request.body()
    sources = [_given(body)] if body else []
    return EmbedInput(options, sources, _match_ids(ids, sources))


class _WholeFormParser(MultiPartParser):
    """Starlette's parser, which also takes a form that was cut off for a shorter one."""

    ended = False

    def on_end(self) -> None:
        """Note the closing boundary."""
        self.ended = True

    async def parse(self) -> FormData:
        """Read the whole form; raises `MultiPartException` also when it ends early."""
        form = await super().parse()
        if not self.ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("The form ends before its closing boundary.")
        return form


async def _read_multipart(request: Request, limits: InputLimits) -> EmbedInput:
    parser = _WholeFormParser(
        request.headers,
        request.stream(),
        max_files=limits.max_images,
        max_fields=_MAX_FORM_FIELDS + limits.max_images,
        max_part_size=_MAX_FORM_FIELD_BYTES,
    )
    parser.spool_max_size = limits.max_body_bytes + 1  # parts stay in memory, no disk to fill
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many_images(limits) from error
        raise InvalidMultipartError("the form cannot be taken apart") from error
    except UnicodeError as error:
        raise InvalidMultipartError("the form cannot be taken apart") from error
    try:
        return await _read_form(form, list(request.query_params.multi_items()))
    finally:
        await form.close()


async def _read_form(form: FormData, fields: list[tuple[str, str]]) -> EmbedInput:
    """Sort a form's parts into images and options, the latter added to `fields`."""
    sources: list[ImageSource] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in _FILE_FIELDS:
                raise UnknownParameterError(
                    f"unknown file field {_shown(name)}", param=_shown(name)
                )
            sources.append(_given(await value.read()))
        elif name in _FILE_FIELDS:
            raise InvalidParameterError("an image must be sent as a file", param=name)
        else:
            fields.append((name, value))
    ids = [value for name, value in fields if name == "id"]
    return EmbedInput(_options(fields), sources, _match_ids(ids, sources))


async def _read_json(request: Request, limits: InputLimits, fetcher: Fetcher | None) -> EmbedInput:
    content = _parse_json(await request.body(), limits)
    for name, value in request.query_params.multi_items():
        if name in content:
            raise InvalidParameterError(f"{_shown(name)} is given twice", param=_shown(name))
        content[name] = value
    if not content.get("images"):
        raise NoImagesError("the request holds no image", param="images")
    if isinstance(content["images"], list) and len(content["images"]) > limits.max_images:
        raise _too_many_images(limits)
    _refuse_long_names(content)
    parsed = validated(EmbedBody, content)
    options = EmbedOptions(**parsed.model_dump(exclude={"images"}))
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
            if len(name) > _MAX_SHOWN_NAME:
                raise UnknownParameterError(f"unknown parameter {_shown(name)}", param=_shown(name))


def _json_source(
    index: int, item: ImageItem, limits: InputLimits, fetcher: Fetcher | None
) -> ImageSource | RemoteImage:
    if item.data is not None:
        return partial(decode_base64, item.data, limits.max_image_bytes)
    if item.url is None or fetcher is None:
        raise UrlInputDisabledError("this service fetches no URLs", param=f"images[{index}].url")
    return RemoteImage(partial(fetcher.fetched, item.url))


def _options(fields: Sequence[tuple[str, str]]) -> EmbedOptions:
    """Read the options of a query string and form; `id` is not an option."""
    options: dict[str, str] = {}
    for name, value in fields:
        if name in options:
            raise InvalidParameterError(f"{_shown(name)} is given twice", param=_shown(name))
        if name != "id":
            options[name] = value
    return validated(EmbedOptions, options)


def _match_ids(ids: Sequence[str], sources: Sequence[ImageSource]) -> Sequence[str | None]:
    if ids and len(ids) != len(sources):
        raise InvalidParameterError("give one id for every image, or none", param="id")
    if any(len(image_id) > MAX_ID_LENGTH for image_id in ids):
        raise InvalidParameterError(f"longer than {MAX_ID_LENGTH} characters", param="id")
    return ids or [None] * len(sources)


def validated(model: type[Model], content: Mapping[str, Any]) -> Model:
    """Validate options or a body; raises the request error for the first thing wrong with it."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _as_request_error(error) from None


def _as_request_error(error: ValidationError) -> InvalidRequestError:
    # Never the input itself: a wrong value may be a whole image, or a secret.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    path = _shown(path.removeprefix("."))
    if first["type"] == "extra_forbidden":
        return UnknownParameterError(f"unknown parameter {path}", param=path)
    reason = first["msg"].removeprefix("Value error, ")
    return InvalidParameterError(f"{path}: {reason}", param=path)


def _shown(name: str) -> str:
    """Make a name from the client fit to be named in an answer."""
    return "".join(
        char if char.isascii() and char.isprintable() else "?" for char in name[:_MAX_SHOWN_NAME]
    )
