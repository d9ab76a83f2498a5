"""Multipart forms: files and fields, in memory, whole or refused."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import (
    MAX_BOUNDARY_LENGTH,
    MultipartParser,
    parse_options_header,
)
from starlette.requests import Request

from app.api.form_stream import from_first_boundary, without_floods
from app.api.options import show_name
from app.errors import (
    InvalidMultipartError,
    InvalidParameterError,
    TooManyImagesError,
    UnknownParameterError,
)

# As axios, PHP and others name the members of a list, too: images[], images[0].
_FILE_FIELD = re.compile(r"(images|image|files|file)(\[\d{0,9}\])?")
_FILE_FIELD_NAMES = "images, image, files or file"
_BINARY_TYPES = (b"image/", b"application/octet-stream", b"binary/")
_MAX_FORM_FIELDS = 128
_MAX_FORM_FIELD_BYTES = 64 * 2**10
# The parser stops at whatever looks like a boundary, also inside a file, and goes on in Python. An
# honest form has one a part; so many more are borne.
_SPARE_BOUNDARIES = 500
# No codec of the client's choice: some of Python's take minutes, or decode to lone surrogates.
_CHARSETS = frozenset({"", "utf-8", "utf8"})


class Form(NamedTuple):
    """A form's files in order of appearance, and its other fields."""

    files: list[bytes]
    fields: list[tuple[str, str]]


@dataclass
class _Part:
    """A part while it arrives."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    is_file: bool = False
    is_named_file: bool = False
    size: int = 0
    chunks: list[bytes] = field(default_factory=list)


class _FormReader:
    """Puts a form together from what the parser calls out; raises the request's errors."""

    def __init__(self, boundary: bytes, max_files: int, max_fields: int) -> None:
        self.form = Form([], [])
        self.ended = False
        self._max_files = max_files
        self._max_fields = max_fields
        self._part = _Part()
        self._header_name = self._header_value = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidMultipartError("the form cannot be taken apart") from error
        except UnicodeError as error:
            raise InvalidMultipartError("a name or field of the form is not UTF-8") from error

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._part.headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        part = self._part
        disposition = part.headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        part.name = options.get(b"name", b"").decode()
        if not part.name:
            raise InvalidMultipartError(
                'a part has no name; Content-Disposition: form-data; name="images" gives it one'
            )
        file_name = options.get(b"filename")
        part.is_named_file = bool(file_name)
        part.is_file = file_name is not None or _is_binary(disposition, part.headers)
        self._check_place(part)

    def _check_place(self, part: _Part) -> None:
        """Check that files are where files go, and nothing else is."""
        belongs = _FILE_FIELD.fullmatch(part.name) is not None
        name = show_name(part.name)
        if part.is_file and not belongs:
            raise UnknownParameterError(
                f"unknown file field {name}; images go into {_FILE_FIELD_NAMES}", param=name
            )
        if belongs and not part.is_file:
            raise InvalidParameterError(
                "an image must be sent as a file: a part with a filename, or of type image/*",
                param=name,
            )

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.size += end - start
        if not part.is_file and part.size > _MAX_FORM_FIELD_BYTES:
            raise InvalidMultipartError(
                f"the field {show_name(part.name)} is over {_MAX_FORM_FIELD_BYTES} bytes; images "
                f"are files, in {_FILE_FIELD_NAMES}"
            )
        part.chunks.append(data[start:end])

    def _end_part(self) -> None:
        part, self._part = self._part, _Part()
        content = b"".join(part.chunks)
        if not part.is_file:
            self._keep_field(part.name, content.decode())
        elif content or part.is_named_file:  # else it is what browsers send of an empty input
            self._keep_file(content)

    def _keep_field(self, name: str, value: str) -> None:
        if len(self.form.fields) == self._max_fields:
            raise InvalidMultipartError("the form has far too many fields")
        self.form.fields.append((name, value))

    def _keep_file(self, content: bytes) -> None:
        if len(self.form.files) == self._max_files:
            raise TooManyImagesError(
                f"more than {self._max_files} images in one request (SIGLIP_MAX_IMAGES)"
            )
        self.form.files.append(content)

    def _end(self) -> None:
        self.ended = True


def _is_binary(disposition: bytes, headers: dict[bytes, bytes]) -> bool:
    """Whether a part without a plain filename is a file all the same, by its name or its type."""
    media_type = headers.get(b"content-type", b"").lower()
    is_named = re.search(rb";\s*filename\*", disposition, re.IGNORECASE)  # RFC 5987's way
    return is_named is not None or media_type.startswith(_BINARY_TYPES)


async def read_form(request: Request, max_files: int, more_fields: int = 0) -> Form:
    """Read a form of at most `max_files` files; empty file inputs are none.

    It may have `more_fields` than the options and ids of images need.

    Raises `InvalidMultipartError`, `TooManyImagesError`, `UnknownParameterError` for a file in an
    unknown field, `InvalidParameterError` for an image that is no file.
    """
    boundary = _boundary(request.headers["content-type"])
    max_fields = _MAX_FORM_FIELDS + max_files + more_fields
    max_boundaries = max_fields + max_files + _SPARE_BOUNDARIES
    stream = without_floods(request.stream(), boundary, max_boundaries)
    reader = _FormReader(boundary, max_files, max_fields)
    async for chunk in from_first_boundary(stream, boundary):
        reader.write(chunk)
    if not reader.ended:
        raise InvalidMultipartError("the form ends before its closing boundary")
    return reader.form


def _boundary(content_type: str) -> bytes:
    """Return a form's boundary, once nothing in its type is in the way of reading it."""
    _, parameters = parse_options_header(content_type)
    if parameters.get(b"charset", b"").decode("latin-1").lower() not in _CHARSETS:
        raise InvalidMultipartError("a form must be in UTF-8")
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise InvalidMultipartError(
            "the Content-Type names no boundary: give the client the form and no Content-Type, and "
            "it sets one that does"
        )
    if len(boundary) > MAX_BOUNDARY_LENGTH:
        raise InvalidMultipartError(f"the boundary is over {MAX_BOUNDARY_LENGTH} bytes")
    return boundary
