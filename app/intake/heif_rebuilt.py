"""HEIF rebuilt: a file of the items that the primary image needs, and of what they need."""

import struct

from app.errors import ImageSuspiciousError
from app.intake.boxes import new_box, new_full_box
from app.intake.heif import AUXILIARY_OF, MADE_OF, HeifImage
from app.intake.outline import truncated, undecodable

_PREMULTIPLIED_BY = b"prem"
# They are essential, and taken care of where they are not kept.
_TURNS = frozenset({b"irot", b"imir", b"clap"})


def rebuild(
    image: HeifImage, data: bytes, needed: list[int], brand: bytes, kept: frozenset[bytes]
) -> bytes:
    """Write a file of the `needed` items, with those of their properties that are `kept`."""
    head = new_box(b"ftyp", brand, bytes(4), brand, b"mif1miaf")
    contents = [item_bytes(image, data, number) for number in needed]
    meta = _meta(image, needed, kept, _places(needed, contents, 0))
    places = _places(needed, contents, len(head) + len(meta) + 8)
    return head + _meta(image, needed, kept, places) + new_box(b"mdat", *contents)


def item_bytes(image: HeifImage, data: bytes, number: int) -> bytes:
    """Join the parts of an item's bytes.

    Raises `ImageSuspiciousError`, `ImageTruncatedError`, `ImageUndecodableError`.
    """
    pieces, total = [], 0
    for where, start, told in image.items[number].parts:
        if where > 1:
            raise undecodable("file")
        source = image.item_data if where else memoryview(data)
        length = told or max(0, len(source) - start)
        if start + length > len(source):
            raise truncated("file")
        total += length
        if total > len(data):  # parts that overlap
            raise ImageSuspiciousError("a file of too many parts")
        pieces.append(source[start : start + length])
    return b"".join(pieces)


def _places(needed: list[int], contents: list[bytes], start: int) -> bytes:
    # Version 2: offsets and lengths of four bytes, no base, numbers of four bytes.
    entries = [struct.pack(">HI", 0x4400, len(needed))]
    for number, content in zip(needed, contents, strict=True):
        entries.append(struct.pack(">IHHHII", number, 0, 0, 1, start, len(content)))
        start += len(content)
    return new_full_box(b"iloc", *entries, version=2)


def _meta(image: HeifImage, needed: list[int], kept: frozenset[bytes], places: bytes) -> bytes:
    kinds = [
        new_full_box(b"infe", struct.pack(">IH4sx", number, 0, image.items[number].kind), version=3)
        for number in needed
    ]
    return new_full_box(
        b"meta",
        new_full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
        new_full_box(b"pitm", struct.pack(">I", image.primary), version=1),
        places,
        new_full_box(b"iinf", struct.pack(">I", len(needed)), *kinds, version=1),
        _references(image, needed),
        _property_boxes(image, needed, kept),
    )


def _references(image: HeifImage, needed: list[int]) -> bytes:
    kept = [
        new_box(kind, struct.pack(f">IH{len(targets)}I", source, len(targets), *targets))
        for kind, source, targets in image.references
        if kind in (MADE_OF, AUXILIARY_OF, _PREMULTIPLIED_BY) and {source, *targets} <= {*needed}
    ]
    return new_full_box(b"iref", *kept, version=1) if kept else b""


def _property_boxes(image: HeifImage, needed: list[int], kept: frozenset[bytes]) -> bytes:
    held: dict[tuple[bytes, bytes], int] = {}
    entries: list[bytes] = []
    for number in needed:
        told = []
        for (name, content), essential in image.items[number].properties:
            if _is_profile(name, content):  # telephones have it essential
                continue
            if name in kept:
                index = held.setdefault((name, bytes(content)), len(held) + 1)
                told.append(index | essential << 15)
            elif essential and name not in _TURNS:
                raise undecodable("file")
        entries.append(struct.pack(f">IB{len(told)}H", number, len(told), *told))
    boxes = [new_box(name, content) for name, content in held]
    wide = bytes((1, 0, 0, 1))
    associations = new_box(b"ipma", wide, struct.pack(">I", len(needed)), *entries)
    return new_box(b"iprp", new_box(b"ipco", *boxes), associations)


def _is_profile(name: bytes, content: memoryview) -> bool:
    return name == b"colr" and bytes(content[:4]) != b"nclx"
