"""How a TIFF's image is divided into strips or tiles, each coded on its own."""

from dataclasses import dataclass

from app.errors import ImageSuspiciousError, ImageTooLargeError
from app.intake.outline import undecodable
from app.intake.tiff_directory import Directory

WIDTH, _HEIGHT, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 278, 322, 323
# libtiff decodes a tile whole, and what of it is outside of the image too.
_MAX_TILE_PIXELS = 2**22
_MOST_TILED = 2


@dataclass(frozen=True)
class Layout:
    """How an image is divided: strips are tiles as wide as the image.

    `size` is that of the image, `part` that of a strip or tile: (width, height) in pixels.
    """

    size: tuple[int, int]
    part: tuple[int, int]
    is_tiled: bool

    @property
    def count(self) -> int:
        """Parts in each plane."""
        across, down = (-(-whole // part) for whole, part in zip(self.size, self.part, strict=True))
        return across * down

    def rows(self, index: int) -> int:
        """Rows of a part, of which the last strip may have fewer."""
        if self.is_tiled:
            return self.part[1]
        return min(self.part[1], self.size[1] - index % self.count * self.part[1])

    def tags(self) -> dict[int, tuple[int, ...]]:
        """Return the tags that say so."""
        tags = {WIDTH: self.size[:1], _HEIGHT: self.size[1:]}
        if self.is_tiled:
            return {**tags, _TILE_WIDTH: self.part[:1], _TILE_HEIGHT: self.part[1:]}
        return {**tags, _ROWS_PER_STRIP: self.part[1:]}


def read_layout(page: Directory, max_pixels: int) -> Layout:
    """Read how an image is divided.

    Raises `ImageTooLargeError`, `ImageSuspiciousError`, `ImageUndecodableError`.
    """
    width, height = page.number(WIDTH, 0), page.number(_HEIGHT, 0)
    if not width or not height:
        raise undecodable("TIFF")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"more than {max_pixels} pixels")
    is_tiled = _TILE_WIDTH in page.tags and _TILE_HEIGHT in page.tags
    if is_tiled:
        part = page.number(_TILE_WIDTH, 0), page.number(_TILE_HEIGHT, 0)
    else:
        part = width, min(page.number(_ROWS_PER_STRIP, height), height)
    if not all(part):
        raise undecodable("TIFF")
    layout = Layout((width, height), part, is_tiled)
    tile = part[0] * part[1]
    if is_tiled and (
        tile > max(_MAX_TILE_PIXELS, _MOST_TILED * width * height)
        or layout.count * tile > _MOST_TILED * max_pixels + _MAX_TILE_PIXELS
    ):
        raise ImageSuspiciousError("a TIFF of tiles far larger than itself")
    return layout
