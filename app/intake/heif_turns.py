"""Which way up a HEIF image is: its own properties tell, not its Exif."""

from app.intake.heif import HeifImage

# The EXIF orientation for turns by 90 degrees anti-clockwise and then no mirror, one that swaps top
# and bottom, one that swaps left and right.
_ORIENTATIONS = ((1, 4, 2), (8, 5, 7), (3, 2, 4), (6, 7, 5))


def read_turns(image: HeifImage) -> int:
    """Return the EXIF orientation that the primary item's turns amount to."""
    item = image.items[image.primary]
    turns, mirror = item.find(b"irot"), item.find(b"imir")
    angle = turns[0] & 3 if turns else 0
    return _ORIENTATIONS[angle][1 + (mirror[0] & 1) if mirror else 0]
