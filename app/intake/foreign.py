"""Formats that are known by name only, so that a refusal can say what was sent."""

import re
from typing import Final

# How an ISO base media file names what it is: the brand that comes first, of those that say it.
_BRANDS: Final = (
    (rb"avi[fs]", "AVIF"),
    (rb"he(?:i[cxms]|v[cxms])", "HEIC"),
    (rb"crx ", "a camera raw (CR3)"),
    (rb"qt  ", "a video (QuickTime)"),
    (rb"M4A |M4B ", "audio (MP4)"),
)
_CONTAINERS: Final = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})
_OTHERS: Final = (
    (rb"II\*\0.{4}CR\x02\0|IIU\0|IIR[OS]|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM", "a camera raw"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"II\xbc", "JPEG XR"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"8BP[SB]", "PSD"),
    (rb"gimp xcf", "XCF"),
    (rb"\0\0\x01\0", "ICO"),
    (rb"\0\0\x02\0[^\0]\0", "CUR"),
    (rb"icns", "ICNS"),
    (rb"P[1-7][\s#]|P[Ff]\s", "PNM"),
    (rb"qoif", "QOI"),
    (rb"DDS ", "DDS"),
    (rb"v/1\x01", "OpenEXR"),
    (rb"#\?(?:RADIANCE|RGBE)", "Radiance HDR"),
    (rb"BPG\xfb", "BPG"),
    (rb"AT&TFORM", "DjVu"),
    (rb".{128}DICM", "DICOM"),
    (rb"SIMPLE  =", "FITS"),
    (rb"\xd7\xcd\xc6\x9a", "WMF"),
    (rb"\x01\0\0\0.{36} EMF", "EMF"),
    (rb"/\* XPM \*/", "XPM"),
    (rb"\x1aE\xdf\xa3", "a video (WebM or Matroska)"),
    (rb"RIFF.{4}AVI ", "a video (AVI)"),
    (rb"RIFF.{4}WAVE|ID3|OggS|fLaC", "audio"),
    (rb"\0\0\x01[\xb3\xba]|FLV\x01", "a video"),
    (rb"\s*(?:<\?xml.*|<!DOCTYPE svg.*|<!--.*)?<svg\b", "SVG"),
    (rb"\s*<\?xml", "XML"),
    (rb"\s*<(?i:!doctype|html|head|body)\b", "HTML"),
    (rb"\x1f\x8b", "gzip"),
    (rb"PK\x03\x04", "ZIP"),
    (rb"7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "an archive"),
    (rb"\0\x05\x16\x07", "AppleDouble: what macOS keeps beside a file"),
    (rb"version https://git-lfs", "a pointer to a file in Git LFS"),
)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LOOKED_AT_BYTES: Final = 1024


def name_foreign_format(data: bytes) -> str | None:
    """Return the name of a format that nothing here decodes by default; None for an unknown one."""
    start = data[:_LOOKED_AT_BYTES].removeprefix(_BYTE_ORDER_MARK)
    if start[4:8] == b"ftyp":
        return _name_by_brands(start)
    return next((name for pattern, name in _OTHERS if re.match(pattern, start, re.DOTALL)), None)


def media_brands(start: bytes) -> list[bytes]:
    """Return what an ISO base media file says it is: its major brand, then the others."""
    end = int.from_bytes(start[:4], "big")
    rest = start[16:end]
    return [start[8:12], *(rest[at : at + 4] for at in range(0, len(rest) - 3, 4))]


def _name_by_brands(start: bytes) -> str:
    """Go by the first brand that is not of the container alone, which leaves open what is in it."""
    brands = [brand for brand in media_brands(start) if brand not in _CONTAINERS]
    kinds = (name for pattern, name in _BRANDS if re.match(pattern, (brands or [b"heic"])[0]))
    return next(kinds, "a video (MP4)")
