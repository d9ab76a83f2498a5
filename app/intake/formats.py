"""The image formats, one record each: how a file of it is told, named, rebuilt and weighed.

A format is its record here, its module, and a plugin of Pillow for it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# Registered by being imported. `Image.open(formats=...)` would otherwise import more of them, in
# the first request, and `Image.init()` all of them.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from app.intake.avif import outline_avif
from app.intake.bmp import outline_bmp
from app.intake.gif import outline_gif
from app.intake.heic import load_heic_decoder, outline_heic
from app.intake.jpeg import outline_jpeg
from app.intake.outline import Outline
from app.intake.png import outline_png
from app.intake.tiff import outline_tiff
from app.intake.webp import outline_webp


@dataclass(frozen=True)
class ImageFormat:
    """An image format, by the name that Pillow and the settings have for it.

    `signature` matches a file's first bytes, `extensions` are how the names of its files end.
    `bytes_per_pixel` is the most memory that decoding takes, as tests measure it: decoder, turning
    upright, RGB copy, and resizing with PyTorch, which begins with copies: 10. `outline` rebuilds a
    file, given its bytes and the most pixels it may have. `load` imports the decoder of a format
    that is an extra of the same name; it raises `ImportError`.
    """

    name: str
    signature: re.Pattern[bytes]
    extensions: tuple[str, ...]
    bytes_per_pixel: int
    outline: Callable[[bytes, int], Outline]
    load: Callable[[], None] | None = None


_JPEG = ImageFormat(
    "jpeg",
    re.compile(rb"\xff\xd8\xff"),
    (".jpg", ".jpeg", ".jpe", ".jfif"),
    bytes_per_pixel=12,
    outline=outline_jpeg,
)
_PNG = ImageFormat(
    "png",
    re.compile(rb"\x89PNG\r\n\x1a\n"),
    (".png",),
    bytes_per_pixel=10,
    outline=outline_png,
)
_WEBP = ImageFormat(
    "webp",
    re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    (".webp",),
    bytes_per_pixel=20,
    outline=outline_webp,
)
_GIF = ImageFormat(
    "gif",
    re.compile(rb"GIF8[79]a"),
    (".gif",),
    bytes_per_pixel=10,
    outline=outline_gif,
)
_BMP = ImageFormat(
    "bmp",
    re.compile(rb"BM"),
    (".bmp", ".dib"),
    bytes_per_pixel=10,
    outline=outline_bmp,
)
_AVIF = ImageFormat(
    "avif",
    re.compile(rb".{4}ftyp(?:(?:mif1|msf1).{4}(?:.{4}){0,20}?)?avi[fs]", re.DOTALL),
    (".avif", ".avifs"),
    bytes_per_pixel=20,
    outline=outline_avif,
)
_TIFF = ImageFormat(
    "tiff",
    # Not a CR2, which begins like one.
    re.compile(rb"II(?:\*\0(?!.{4}CR\x02)|\+\0)|MM\0[*+]", re.DOTALL),
    (".tif", ".tiff"),
    bytes_per_pixel=20,
    outline=outline_tiff,
)
_HEIC = ImageFormat(
    "heic",
    # Behind AVIF, which may name its container first as well.
    re.compile(rb".{4}ftyp(?:mif[12]|msf1|miaf|he(?:i[cxms]|v[cxms]))", re.DOTALL),
    (".heic", ".heif", ".hif", ".heics", ".heifs"),
    bytes_per_pixel=20,
    outline=outline_heic,
    load=load_heic_decoder,
)

FORMATS: Mapping[str, ImageFormat] = MappingProxyType(
    {record.name: record for record in (_JPEG, _PNG, _WEBP, _GIF, _BMP, _AVIF, _TIFF, _HEIC)}
)


def load_decoders(names: Iterable[str]) -> None:
    """Import what decodes these formats; raises `ImportError`, whose name is that of a format."""
    for name in names:
        if (load := FORMATS[name].load) is None:
            continue
        try:
            load()
        except ImportError as error:
            raise ImportError(str(error), name=name) from error
