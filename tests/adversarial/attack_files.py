"""Image files made to cost more than they look like, or to break what reads them.

Every file is made here, when it is asked for; none is kept.
"""

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from PIL import Image

from tests.app.images import animation, encode, plain, png_claiming, scene

MIB = 2**20
_ALMOST_THE_LARGEST_FILE = 20 * MIB - 10_000

_EXIF = b"Exif\0\0"
# An extension that is over at its first block; Pillow skips what follows, to the next empty one.
_BEHIND_AN_EMPTY_BLOCK = b"!\x01\0;" + b"a" * 59 + b"\0"


@dataclass(frozen=True)
class Attack:
    """A hostile file, and the answer that is due to it; status 200 has no code."""

    name: str
    make: Callable[[], bytes]
    status: int
    code: str | None = None


def all_attacks() -> list[Attack]:
    """Return every attack."""
    return [
        *(Attack(name, make, 413, "image_too_large") for name, make in _TOO_LARGE.items()),
        *(Attack(name, make, 422, "image_suspicious") for name, make in _SUSPICIOUS.items()),
        *(Attack(name, make, 422, "image_undecodable") for name, make in _UNDECODABLE.items()),
        *(Attack(name, make, 422, "image_truncated") for name, make in _TRUNCATED.items()),
        *(Attack(name, make, 415, "unsupported_image_format") for name, make in _FOREIGN.items()),
        *(Attack(name, make, 200) for name, make in _HARMLESS.items()),
    ]


# The formats' building blocks.


@cache
def _jpeg(side: int = 64, *, progressive: bool = False) -> bytes:
    return encode(scene(1, (side, side)), "JPEG", progressive=progressive)


@cache
def _still(image_format: str) -> bytes:
    return encode(scene(1), image_format)


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def _jpeg_with(head: bytes) -> bytes:
    """Put bytes in front of all that a JPEG holds."""
    return _jpeg()[:2] + head + _jpeg()[2:]


def _jpeg_claiming(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"\xff\xc2" if b"\xff\xc2" in data else b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _chunk(name: bytes, content: bytes = b"") -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _png_with(chunks: bytes) -> bytes:
    """Put chunks behind a PNG's header."""
    return _still("PNG")[:33] + chunks + _still("PNG")[33:]


def _png(width: int, height: int, bits: int, kind: int, row: bytes) -> bytes:
    """Write a PNG of equal rows, each with its filter byte."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _grey_png(width: int, height: int) -> bytes:
    return _png(width, height, 8, 0, bytes(width + 1))


def _gif_head() -> int:
    """Return where a GIF's blocks begin."""
    flags = _still("GIF")[10]
    return 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)


def _gif_with(blocks: bytes) -> bytes:
    return _still("GIF")[: _gif_head()] + blocks + _still("GIF")[_gif_head() :]


def _run_length_bmp(width: int, height: int, data: bytes, *, bits: int = 8) -> bytes:
    palette = bytes(4 << bits)
    start = 54 + len(palette)
    file_header = struct.pack("<IHHI", start + len(data), 0, 0, start)
    coding = 1 if bits == 8 else 2
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, coding, len(data), 0, 0, 1 << bits, 0
    )
    return b"BM" + file_header + header + palette + data


def _lossless_webp(width: int, height: int) -> bytes:
    """Write a WebP of one colour: five Huffman codes of one symbol each, so no bits for pixels."""
    bits, length = 0, 0
    one_symbol = (0b0001, 4)
    fields = [(width - 1, 14), (height - 1, 14), (1, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    for value, size in [*fields, *[one_symbol] * 5]:
        bits |= value << length
        length += size
    image = b"\x2f" + bits.to_bytes(-(-length // 8), "little")
    image += bytes(len(image) % 2)
    return b"RIFF" + struct.pack("<I", 12 + len(image)) + b"WEBPVP8L" + _u32(len(image)) + image


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _directory(entries: int, bytes_each: int, total: int) -> bytes:
    """Write a TIFF directory whose entries all claim the same bytes."""
    body = b"".join(struct.pack("<HHII", 1000 + i, 7, bytes_each, 8) for i in range(entries))
    return (b"II*\0" + _u32(8) + struct.pack("<H", entries) + body).ljust(total, b"\0")


def _cyclic_exif() -> bytes:
    """Write an Exif whose directories name one another for ever."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return _EXIF + b"II*\0" + _u32(8) + struct.pack("<H", 1) + entry + _u32(8)


# The attacks, by the answer that is due.


def _fractions(count: int) -> bytes:
    """Write an Exif whose orientation is that many fractions."""
    entry = struct.pack(">HHII", 0x0112, 5, count, 26)
    return b"MM\0*\0\0\0\x08\0\1" + entry + bytes(4) + b"\0\0\0\1" * 2 * count


def _scan_bomb(scans: int) -> bytes:
    """Repeat the last scan of a progressive JPEG; libjpeg goes over the whole image for each."""
    whole = encode(Image.new("L", (2_000, 2_000)), "JPEG", progressive=True)
    scan = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[scan:-2] * scans + b"\xff\xd9"


def _scan_bomb_behind_a_false_end() -> bytes:
    """Hide the scans behind an end marker that is inside a comment."""
    bomb = _scan_bomb(2_000)
    second_scan = bomb.index(b"\xff\xda", bomb.index(b"\xff\xda") + 2)
    its_tables = bomb.rindex(b"\xff\xc4", 0, second_scan)
    return bomb[:its_tables] + _segment(0xFE, b"\xff\xd9") + bomb[its_tables:]


def _scan_bomb_behind_a_short_segment(marker: int, length: int) -> bytes:
    """Hide the scans behind a segment shorter than its length, which libjpeg goes over."""
    whole = encode(Image.new("L", (2_000, 2_000)), "JPEG", progressive=True)
    scan = whole.rindex(b"\xff\xda")
    hidden = bytes((0xFF, marker, 0, length)) + whole[scan:-2] * 2_000
    return whole[:-2] + hidden + b"\xff\xd9"


def _flood(part: bytes) -> bytes:
    return part * (_ALMOST_THE_LARGEST_FILE // len(part))


def _zeros_packed(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(mebibytes)) + packer.flush()


def _text_chunk(kind: bytes, packed: bytes) -> bytes:
    middle = {b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0", b"iCCP": b"\0\0"}[kind]
    return _chunk(kind, b"key" + middle + packed)


def _broken_zeros() -> bytes:
    """Inflate to almost a megabyte, then break."""
    return zlib.compress(bytes(MIB - 1), 9)[:-6] + b"broken"


def _first_half(image_format: str) -> bytes:
    whole = _still(image_format)
    return whole[: len(whole) // 2]


def _bad_checksum(chunk: bytes) -> bytes:
    whole = _still("PNG")
    end = whole.index(chunk) + 4 + struct.unpack(">I", whole.split(chunk)[0][-4:])[0]
    return whole[:end] + bytes(4) + whole[end + 4 :]


def _damaged_pixels() -> bytes:
    whole = bytearray(_still("PNG"))
    whole[len(whole) // 2] ^= 0xFF
    return bytes(whole)


_TOO_LARGE: dict[str, Callable[[], bytes]] = {
    "PNG of 30000 x 30000 in 100 KB": lambda: _png(30_000, 30_000, 1, 0, bytes(3_751)),
    "PNG header of 2**31 - 1 squared": lambda: png_claiming(2**31 - 1, 2**31 - 1),
    "JPEG header of 65500 x 65500": lambda: _jpeg_claiming(_jpeg(), 65_500, 65_500),
    "GIF screen of 65535 x 65535": lambda: b"GIF89a" + b"\xff" * 4 + _still("GIF")[10:],
    "BMP header of 30000 x 30000": lambda: (
        _still("BMP")[:18] + struct.pack("<ii", 30_000, 30_000) + _still("BMP")[26:]
    ),
    "WebP of 9400 x 9400 in 34 bytes": lambda: _lossless_webp(9_400, 9_400),
    "GIF of a frame far beyond its screen behind an empty block": lambda: _gif_with(
        _BEHIND_AN_EMPTY_BLOCK
        + b"!\xf9\4\x09\0\0\0\0,"
        + struct.pack("<4HB", 0, 0, 13_000, 13_000, 0)
        + b"\2\2\x44\1\0;"
    ),
    "PNG of 1 x 65536": lambda: _grey_png(1, 65_536),
    "PNG of 65536 x 1": lambda: _grey_png(65_536, 1),
}

_SUSPICIOUS: dict[str, Callable[[], bytes]] = {
    "JPEG of 2000 scans": lambda: _scan_bomb(2_000),
    "JPEG of 2000 scans behind a false end": _scan_bomb_behind_a_false_end,
    "JPEG of 90 scans over 49 million pixels": lambda: _jpeg_claiming(_scan_bomb(80), 7_000, 7_000),
    "JPEG of a few bytes that claims 7000 x 7000": lambda: _jpeg_claiming(
        encode(plain((9, 9, 9)), "JPEG"), 7_000, 7_000
    ),
    "JPEG of ten thousand Exif segments": lambda: _jpeg_with(
        _segment(0xE1, _EXIF + bytes(1_000)) * 10_000
    ),
    "JPEG of millions of empty segments": lambda: _jpeg_with(_flood(_segment(0xE1, b""))),
    **{
        f"JPEG of 2000 scans behind a segment FF{marker:02X} of length {length}": partial(
            _scan_bomb_behind_a_short_segment, marker, length
        )
        for marker in (0xFE, 0xE5, 0xDC)
        for length in (0, 1)
    },
    "JPEG of 20 MB of tables": lambda: _jpeg_with(
        _flood(_segment(0xDB, (b"\0" + b"\1" * 64) * 1_000))
    ),
    "JPEG of millions of empty tables between its scans": lambda: (
        _jpeg(progressive=True)[:-2] + _flood(_segment(0xC4, b""))
    ),
    "WebP of two million chunks": lambda: _webp_with(_flood(b"abcd\0\0\0\0"), xmp=b"<x/>"),
    "WebP of a million frames without pixels": lambda: _webp_with(
        _flood(b"ANMF\x10\0\0\0" + bytes(16)), animated=True
    ),
    "PNG of 200000 texts": lambda: _png_with(_chunk(b"tEXt", b"a\0b") * 200_000),
    "PNG of a million unknown chunks": lambda: _png_with(_flood(_chunk(b"abCd"))),
    "PNG of a million chunks behind its pixels": lambda: (
        _still("PNG")[:-12] + _flood(_chunk(b"abCd")) + _chunk(b"IEND")
    ),
    "GIF of millions of extensions": lambda: _gif_with(_flood(b"!\x01\1a\0")),
    "GIF of millions of blocks behind an empty one": lambda: _gif_with(
        _BEHIND_AN_EMPTY_BLOCK[:-1] + _flood(b"\x01a") + b"\0"
    ),
    "GIF of millions of blocks behind a loop count that is missing": lambda: _gif_with(
        b"!\xff\x0bNETSCAPE2.0\0" + _flood(b"\x01a") + b"\0"
    ),
    "GIF of millions of one-byte blocks": lambda: _still("GIF")[:-2] + _flood(b"\x01a") + b"\0;",
    "BMP of millions of runs": lambda: _run_length_bmp(7_000, 7_000, _flood(b"\1\1")),
    "BMP of millions of line ends": lambda: _run_length_bmp(7_000, 7_000, _flood(b"\0\0")),
    "BMP of 48 million pixels in few runs": lambda: _run_length_bmp(
        16_000, 3_000, (b"\xff\x12" * 63 + b"\0\0") * 3_000, bits=4
    ),
}

_UNDECODABLE: dict[str, Callable[[], bytes]] = {
    "PNG with a wrong checksum over its header": lambda: _bad_checksum(b"IHDR"),
    "PNG with a damaged byte among its pixels": _damaged_pixels,
    "PNG of no width": lambda: png_claiming(0, 10),
    "JPEG of no height": lambda: _jpeg_claiming(_jpeg(), 64, 0),
    "JPEG that is only markers": lambda: b"\xff\xd8\xff\xd8\xff\xd9",
    "GIF without a frame": lambda: _still("GIF")[: _gif_head()] + b";",
    "WebP without content": lambda: b"RIFF\x04\0\0\0WEBP",
}

_TRUNCATED: dict[str, Callable[[], bytes]] = {
    "JPEG that ends early": lambda: _first_half("JPEG"),
    "PNG that ends early": lambda: _first_half("PNG"),
    "BMP that ends early": lambda: _first_half("BMP"),
    "BMP without pixels": lambda: _still("BMP")[:20],
}

_FOREIGN: dict[str, Callable[[], bytes]] = {
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "SVG": lambda: (
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    ),
    "XML with an external entity": lambda: (
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>'
    ),
    "HTML": lambda: b"<html><script>alert(1)</script></html>",
    "PDF": lambda: b"%PDF-1.7\n%%EOF\n",
    "gzip of zeros": lambda: gzip.compress(bytes(10 * MIB), mtime=0),
    "TIFF": lambda: encode(plain((1, 2, 3)), "TIFF"),
    "ICO": lambda: encode(plain((1, 2, 3), (16, 16)), "ICO"),
    "PPM": lambda: encode(plain((1, 2, 3)), "PPM"),
    "nothing": lambda: b"",
}

_HARMLESS: dict[str, Callable[[], bytes]] = {
    "PNG of 1 x 65535": lambda: _grey_png(1, 65_535),
    "PNG of 65535 x 1": lambda: _grey_png(65_535, 1),
    "PNG of 2 x 16000": lambda: _grey_png(2, 16_000),
    "JPEG of 1 x 65500": lambda: encode(Image.new("L", (1, 65_500)), "JPEG"),
    "PNG of 15000 colour profiles": lambda: _png_with(
        _text_chunk(b"iCCP", zlib.compress(bytes(MIB - 1), 9)) * 15_000
    ),
    "PNG of 15000 texts that break while they inflate": lambda: _png_with(
        _text_chunk(b"zTXt", _broken_zeros()) * 15_000
    ),
    "PNG with 200 MiB of zTXt": lambda: _png_with(_text_chunk(b"zTXt", _zeros_packed(200))),
    "PNG with 200 MiB of iTXt": lambda: _png_with(_text_chunk(b"iTXt", _zeros_packed(200))),
    "PNG with 200 MiB of iCCP": lambda: _png_with(_text_chunk(b"iCCP", _zeros_packed(200))),
    "PNG with 60 MiB of zTXt in 60 chunks": lambda: _png_with(
        _text_chunk(b"zTXt", zlib.compress(bytes(MIB - 1), 9)) * 60
    ),
    "PNG with one large colour profile": lambda: _png_with(
        _text_chunk(b"iCCP", zlib.compress(bytes(500_000)))
    ),
    "PNG with a wrong checksum over sound pixels": lambda: _bad_checksum(b"IDAT"),
    "JPEG with cyclic Exif": lambda: _jpeg_with(_segment(0xE1, _cyclic_exif())),
    "JPEG with Exif that is text": lambda: _jpeg_with(_segment(0xE1, _EXIF + b"LoremIpsum")),
    "JPEG with Exif that claims 5000 times its size": lambda: _jpeg_with(
        _segment(0xE1, _EXIF + _directory(5_000, 65_000, 65_500))
    ),
    "JPEG with a picture index that claims 5000 times its size": lambda: _jpeg_with(
        _segment(0xE2, b"MPF\0" + _directory(5_000, 65_000, 65_500))
    ),
    "PNG with Exif that claims 1000 times its size": lambda: _png_with(
        _chunk(b"eXIf", _directory(1_000, MIB, 2 * MIB))
    ),
    "PNG with an orientation of two million fractions": lambda: _png_with(
        _chunk(b"eXIf", _fractions(2_000_000))
    ),
    "WebP with an orientation of two million fractions": lambda: encode(
        scene(1), "WEBP", exif=_fractions(2_000_000)
    ),
    "JPEG of 20 MB of fill among its pixels": lambda: _jpeg()[:-2] + _flood(b"\xff") + _jpeg()[-2:],
    "JPEG of 20 MB of fill behind a comment of no length": lambda: (
        _jpeg(progressive=True)[:-2] + b"\xff\xfe\0\0" + _flood(b"\xff") + b"\xff\xd9"
    ),
    "JPEG of 20 MB of short runs of fill": lambda: (
        _jpeg()[:-2] + _flood(b"\xff" * 4_095 + b"\0") + _jpeg()[-2:]
    ),
    "GIF of 20 MB of padding": lambda: _gif_with(_flood(b"\0")),
    "GIF of millions of blocks behind its frame": lambda: (
        _still("GIF")[:-1] + b"!\xfe" + _flood(b"\x01a") + b"\0;"
    ),
    "WebP of two million chunks behind its pixels": lambda: _webp_with(_flood(b"abcd\0\0\0\0")),
    "PNG with 20 MB of XMP": lambda: _png_with(
        _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _flood(b"tiff:Orientation"))
    ),
    "PNG with 20 MB behind its end": lambda: _still("PNG") + _flood(b"\0"),
    "JPEG with 20 MB of padding": lambda: _jpeg_with(_flood(b"\xff")),
    "JPEG with 20 MB between its segments": lambda: (
        _jpeg()[:20] + bytes(20 * MIB - 10_000) + _jpeg()[20:]
    ),
    "JPEG with scan markers behind its end": lambda: _jpeg() + b"\xff\xda" * 5_000,
    "GIF of 3000 frames": lambda: animation([(i % 256, i // 256, 9) for i in range(3_000)], "GIF"),
    "WebP of 300 frames": lambda: animation([(i % 256, i // 256, 9) for i in range(300)], "WEBP"),
    "PNG of 300 frames": lambda: animation([(i % 256, i // 256, 9) for i in range(300)], "PNG"),
    "GIF with 20 MB of comment": lambda: _gif_with(b"!\xfe" + _flood(b"\xff" + b"a" * 255) + b"\0"),
    "GIF that is JavaScript": lambda: _still("GIF") + b"=1;alert(document.domain)//",
    "JPEG that is a ZIP": lambda: _jpeg() + b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18),
    "PNG that is HTML": lambda: (
        _png_with(_chunk(b"tEXt", b"a\0<script>alert(1)</script>")) + b"<script>alert(2)</script>"
    ),
}


def _webp_with(chunks: bytes, *, animated: bool = False, **options: bytes) -> bytes:
    """Put chunks behind a WebP's; with metadata or frames it is read to its end."""
    frames = [(255, 0, 0), (0, 0, 255)]
    whole = animation(frames, "WEBP") if animated else encode(scene(1), "WEBP", **options)
    content = whole[8:] + chunks
    return b"RIFF" + _u32(len(content)) + content
