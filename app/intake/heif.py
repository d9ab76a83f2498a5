"""HEIF, which AVIF and HEIC are: what a file says of its items, and which the primary one needs.

A file lists items, says where the bytes of each are, which other items it is made of, and which
properties it has.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from app.errors import ImageSuspiciousError, ImageTooLargeError
from app.intake.boxes import Box, Fields, read_boxes
from app.intake.outline import truncated, undecodable

# A grid of 256 tiles, for its alpha too.
_MAX_ITEMS = 1_000
_MAX_PROPERTIES = 5_000
_MAX_PARTS = 10_000
MADE_OF, AUXILIARY_OF = b"dimg", b"auxl"
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
# Tiles may reach over the image's edge.
_MOST_TILED = 2
_SHORT = 2


class Property(NamedTuple):
    """A property's name, its content, and whether an item cannot be shown without it."""

    box: Box
    essential: bool


@dataclass
class Item:
    """An item: its type, the parts of its bytes, its properties."""

    kind: bytes = b""
    parts: list[tuple[int, int, int]] = field(default_factory=list)  # where, from, length
    properties: list[Property] = field(default_factory=list)

    def find(self, name: bytes) -> memoryview | None:
        """Return the content of a property."""
        return next((each.box.content for each in self.properties if each.box.name == name), None)


@dataclass
class HeifImage:
    """What a file says of its items; `primary` is the number of the one to show."""

    primary: int = 0
    items: dict[int, Item] = field(default_factory=dict)
    references: list[tuple[bytes, int, list[int]]] = field(default_factory=list)
    item_data: memoryview = memoryview(b"")  # noqa: RUF009 # of no bytes
    has_track: bool = False


def read_heif(data: bytes) -> HeifImage:
    """Read what a file's items are; raises `ImageSuspiciousError`, `ImageUndecodableError`."""
    image = HeifImage()
    metas = 0
    for box in read_boxes(memoryview(data)):
        image.has_track |= box.name == b"moov"
        if box.name == b"meta" and not metas:
            metas += 1
            _read_meta(image, box.content[4:])
    if image.primary not in image.items:
        raise undecodable("file") if metas else truncated("file")
    return image


def _read_meta(image: HeifImage, content: memoryview) -> None:
    boxes = {box.name: box.content for box in reversed(list(read_boxes(content)))}
    image.item_data = boxes.get(b"idat", image.item_data)
    if b"pitm" in boxes:
        fields = Fields(boxes[b"pitm"])
        image.primary = fields.number(_width(fields.version()))
    _read_kinds(image, Fields(boxes.get(b"iinf", memoryview(bytes(6)))))
    _read_places(image, Fields(boxes.get(b"iloc", memoryview(bytes(8)))))
    if b"iref" in boxes:
        _read_references(image, Fields(boxes[b"iref"]))
    if b"iprp" in boxes:
        _read_properties(image, boxes[b"iprp"])


def _width(version: int) -> int:
    return 2 if version == 0 else 4


def _read_kinds(image: HeifImage, fields: Fields) -> None:
    fields.number(_width(fields.version()))
    for box in read_boxes(fields.rest):
        entry = Fields(box.content)
        version = entry.version()
        if box.name != b"infe" or version < _SHORT:
            continue
        number = entry.number(2 if version == _SHORT else 4)
        entry.number(2)
        image.items.setdefault(number, Item(bytes(entry.take(4))))
        if len(image.items) > _MAX_ITEMS:
            raise ImageSuspiciousError("a file of too many items")


def _read_places(image: HeifImage, fields: Fields) -> None:
    version = fields.version()
    sizes = fields.number(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (sizes >> at & 15 for at in (12, 8, 4, 0))
    left = _MAX_PARTS
    for _ in range(fields.number(2 if version < _SHORT else 4)):
        number = fields.number(2 if version < _SHORT else 4)
        where = fields.number(2) & 15 if version else 0
        fields.number(2)
        base, count = fields.number(base_bytes), fields.number(2)
        left -= count + 1
        if left < 0:
            raise ImageSuspiciousError("a file of too many parts")
        parts = []
        for _ in range(count):
            fields.number(index_bytes if version else 0)
            start = base + fields.number(offset_bytes)
            parts.append((where, start, fields.number(length_bytes)))
        if number in image.items and not image.items[number].parts:
            image.items[number].parts = parts


def _read_references(image: HeifImage, fields: Fields) -> None:
    width = _width(fields.version())
    for box in read_boxes(fields.rest):
        entry = Fields(box.content)
        source = entry.number(width)
        targets = [entry.number(width) for _ in range(entry.number(2))]
        image.references.append((box.name, source, targets))
        if len(image.references) > _MAX_ITEMS:
            raise ImageSuspiciousError("a file of too many references")


def _read_properties(image: HeifImage, content: memoryview) -> None:
    boxes = list(read_boxes(content))
    held = next((list(read_boxes(box.content)) for box in boxes if box.name == b"ipco"), [])
    left = _MAX_PROPERTIES
    for box in boxes:
        if box.name != b"ipma":
            continue
        fields = Fields(box.content)
        wide = bool(fields.take(4)[3] & 1)
        number_bytes = _width(box.content[0])
        for _ in range(fields.number(4)):
            item = image.items.get(fields.number(number_bytes), Item())
            count = fields.number(1)
            left -= count + 1
            if left < 0:
                raise ImageSuspiciousError("a file of too many properties")
            told = [fields.number(2 if wide else 1) for _ in range(count)]
            item.properties += _properties(held, told, 15 if wide else 7)


def _properties(held: list[Box], told: list[int], index_bits: int) -> Iterator[Property]:
    for value in told:
        index = value & ((1 << index_bits) - 1)
        if index > len(held):
            raise undecodable("file")
        if index:
            yield Property(held[index - 1], bool(value >> index_bits))


def needed_items(image: HeifImage) -> list[int]:
    """Return the numbers of the primary item, its tiles, and the alpha of all these."""
    needed = [image.primary]
    for number in needed:  # which grows
        for kind, source, targets in image.references:
            if kind == MADE_OF and source == number:
                found = targets
            elif kind == AUXILIARY_OF and number in targets and _is_alpha(image, source):
                found = [source]
            else:
                continue
            needed += [each for each in dict.fromkeys(found) if each not in needed]
    if not set(needed) <= set(image.items):
        raise undecodable("file")
    return needed


def _is_alpha(image: HeifImage, number: int) -> bool:
    kind = image.items.get(number, Item()).find(b"auxC")
    return kind is not None and bytes(kind[4:]).split(b"\0")[0] in _ALPHA


def check_tiles(image: HeifImage, needed: list[int], max_pixels: int) -> tuple[int, int]:
    """Return the size that the primary item claims, (width, height).

    Raises `ImageTooLargeError` where it, or its tiles together, are over `max_pixels`;
    `ImageUndecodableError` for want of a size.
    """
    areas = {number: _area(image.items[number]) for number in needed}
    coded = sum(area for number, area in areas.items() if image.items[number].kind != b"grid")
    # Alpha has tiles too.
    if areas[image.primary] > max_pixels or coded > 2 * _MOST_TILED * max_pixels:
        raise ImageTooLargeError(f"more than {max_pixels} pixels")
    return _size(image.items[image.primary])


def _size(item: Item) -> tuple[int, int]:
    extent = item.find(b"ispe")
    if extent is None or len(extent) < 12:  # version, width, height
        raise undecodable("file")
    width, height = struct.unpack_from(">II", extent, 4)
    return width, height


def _area(item: Item) -> int:
    width, height = _size(item)
    return width * height
