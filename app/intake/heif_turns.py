"""Which way up a HEIF image is: its own properties tell, not its Exif."""

from app.intake.heif import HeifImage

# The EXIF orientation for turns by 90 degrees anti-clockwise and then no mirror, one that swaps top
# and bottom, one that swaps left and right.
_ORIENTATIONS = ((1, 4, 2), (8, 5, 7), (3, 2, 4), (6, 7, 5))
_TURN, _MIRROR, _CROP = b"irot", b"imir", b"clap"


def turns_of(image: HeifImage) -> list[bytes]:
    """Return what changes the primary item's shape, in the order in which it does."""
    names = (each.box.name for each in image.items[image.primary].properties)
    return [name for name in names if name in (_TURN, _MIRROR, _CROP)]


def read_turns(image: HeifImage, *, in_order: bool = False) -> int:
    """Return the EXIF orientation that the primary item's turns amount to.

    The mirror comes last, unless they count `in_order`.
    """
    item = image.items[image.primary]
    turns, mirror = item.find(_TURN), item.find(_MIRROR)
    angle = turns[0] & 3 if turns else 0
    if not mirror:
        return _ORIENTATIONS[angle][0]
    axis = mirror[0] & 1
    if in_order and turns and turns_of(image).index(_MIRROR) < turns_of(image).index(_TURN):
        axis ^= angle & 1  # the other, once it is turned
    return _ORIENTATIONS[angle][1 + axis]
