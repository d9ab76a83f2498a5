"""Multipart forms: files and fields, in memory, whole or refused."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.api.options import shown
from app.errors import (
    InvalidMultipartError,
    InvalidParameterError,
    TooManyImagesError,
    UnknownParameterError,
)

_FILE_FIELDS = frozenset({"images", "image", "files", "file"})
_MAX_FORM_FIELDS = 128
_MAX_FORM_FIELD_BYTES = 64 * 2**10
# Of every one, also in the middle of a file, the parser finds out in Python that it is none. Beside
# those of the parts that may be, honest forms have none.
_SPARE_BOUNDARIES = 500
# Of a codec that a client names, Python has some that take minutes, or make half a character.
_CHARSETS = frozenset({"", "utf-8", "utf8"})


class Form(NamedTuple):
    """A form's files in order, and its other fields."""

    files: list[bytes]
    fields: list[tuple[str, str]]


class _WholeFormParser(MultiPartParser):
    """Starlette's parser, less what it makes of broken forms.

    It takes one that was cut off for a shorter one, and text that is not UTF-8 for Latin-1.
    """

    ended = False

    def on_headers_finished(self) -> None:
        """Begin a part; raises `UnicodeError` when its name is not UTF-8. A file's is not used."""
        _, options = parse_options_header(self._current_part.content_disposition)
        options.get(b"name", b"").decode()
        super().on_headers_finished()

    def on_part_end(self) -> None:
        """End a part; raises `UnicodeError` for a field that is not UTF-8."""
        if self._current_part.file is None:
            self._current_part.data.decode()
        super().on_part_end()

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


async def read_form(request: Request, max_files: int, max_bytes: int) -> Form:
    """Read a form of at most `max_files` files, in a body of at most `max_bytes`.

    Raises `InvalidMultipartError`, `TooManyImagesError`, `UnknownParameterError` for a file in an
    unknown field, `InvalidParameterError` for an image that is no file.
    """
    _, parameters = parse_options_header(request.headers["content-type"])
    if parameters.get(b"charset", b"").decode("latin-1").lower() not in _CHARSETS:
        raise InvalidMultipartError("a form must be in UTF-8")
    parser = _WholeFormParser(
        request.headers,
        _without_floods(
            request.stream(),
            parameters.get(b"boundary", b""),
            _MAX_FORM_FIELDS + 2 * max_files + _SPARE_BOUNDARIES,
        ),
        max_files=max_files,
        max_fields=_MAX_FORM_FIELDS + max_files,
        max_part_size=_MAX_FORM_FIELD_BYTES,
    )
    parser.spool_max_size = max_bytes + 1  # parts stay in memory, no disk to fill
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise TooManyImagesError(f"more than {max_files} images in one request") from error
        raise InvalidMultipartError("the form cannot be taken apart") from error
    except UnicodeError as error:
        raise InvalidMultipartError("the form cannot be taken apart") from error
    try:
        return await _sort(form)
    finally:
        await form.close()


async def _without_floods(
    stream: AsyncGenerator[bytes, None], boundary: bytes, max_boundaries: int
) -> AsyncGenerator[bytes, None]:
    """Pass a body on, unless it is full of what looks like boundaries."""
    boundaries = 0
    async for chunk in stream:
        boundaries += chunk.count(b"\r\n--" + boundary)
        if boundaries > max_boundaries:
            raise InvalidMultipartError("the form holds far too many boundaries")
        yield chunk


async def _sort(form: FormData) -> Form:
    sorted_form = Form([], [])
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in _FILE_FIELDS:
                raise UnknownParameterError(f"unknown file field {shown(name)}", param=shown(name))
            sorted_form.files.append(await value.read())
        elif name in _FILE_FIELDS:
            raise InvalidParameterError("an image must be sent as a file", param=name)
        else:
            sorted_form.fields.append((name, value))
    return sorted_form
