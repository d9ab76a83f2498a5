"""What the pixels of a TIFF are made of, and which of it is decoded here."""

from dataclasses import dataclass
from types import MappingProxyType

from PIL import TiffImagePlugin

from app.errors import UnsupportedImageFormatError
from app.intake.tiff_directory import Directory

BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 258, 259, 262, 266
SAMPLES_PER_PIXEL, PLANAR, PREDICTOR = 277, 284, 317
_INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 332, 338, 339

UNCOMPRESSED, JPEG = 1, 7
_CODECS = frozenset({UNCOMPRESSED, 2, 3, 4, 5, JPEG, 8, 32773, 32946})
_CCITT = frozenset({2, 3, 4})
# What else is met with, so that a refusal can name it.
_OTHER_CODECS = MappingProxyType(
    {
        6: "JPEG of the old kind",
        9: "JBIG",
        33003: "JPEG 2000",
        33005: "JPEG 2000",
        34712: "JPEG 2000",
        34676: "SGI Log",
        34677: "SGI Log",
        34887: "LERC",
        34892: "lossy JPEG",
        34925: "LZMA",
        50000: "Zstandard",
        50001: "WebP",
        50002: "JPEG XL",
    }
)

WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE, CMYK, YCBCR = 0, 1, 3, 5, 6
_COLOURS = MappingProxyType(
    {
        WHITE_IS_ZERO: "grey",
        BLACK_IS_ZERO: "grey",
        2: "RGB",
        PALETTE: "palette",
        4: "mask",
        CMYK: "CMYK",
        YCBCR: "YCbCr",
        8: "Lab",
        9: "Lab",
        10: "Lab",
        32803: "camera raw",
        34892: "camera raw",
    }
)
_UNSIGNED, _UNTYPED = 1, 4
_FORMATS = MappingProxyType({2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "})
_MOST_SAMPLES = TiffImagePlugin.MAX_SAMPLESPERPIXEL
# Of the modes that Pillow has for a TIFF's pixels: those that it cannot make RGB of, and numbers of
# a range that nobody tells.
_MODES_APART = frozenset({"I", "F", "LAB"})
_PLANAR_MODES = frozenset({"RGB", "RGBA", "CMYK"})  # of others Pillow takes the wrong plane
_CONVERT = "convert it to RGB of 8 bits"

# Else Pillow reads what is not compressed by itself, and planes of 16 bits wrongly.
TiffImagePlugin.READ_LIBTIFF = True
# It has no way from what libtiff gives to the mode it has for big-endian grey.
TiffImagePlugin.OPEN_INFO[b"MM", BLACK_IS_ZERO, (1,), 1, (16,), ()] = ("I;16", "I;16B")


@dataclass(frozen=True)
class Samples:
    """The samples of each pixel, and how they are coded.

    `bits` is of each sample, `extra` what those beside the colours are. `planes` are 1, or as many
    as there are samples where each has one of its own.
    """

    photometric: int
    bits: tuple[int, ...]
    extra: tuple[int, ...]
    planes: int
    compression: int
    fill_order: int
    predictor: int

    @property
    def bits_per_part(self) -> int:
        """Bits of a pixel in each strip or tile."""
        return self.bits[0] if self.planes > 1 else sum(self.bits)

    @property
    def is_inverted(self) -> bool:
        """Whether 0 is white where Pillow would have it black."""
        return self.photometric == WHITE_IS_ZERO and self.bits == (16,)

    def tags(self) -> dict[int, tuple[int, ...]]:
        """Return the tags that say so."""
        photometric = BLACK_IS_ZERO if self.is_inverted else self.photometric
        tags = {
            BITS_PER_SAMPLE: self.bits,
            COMPRESSION: (self.compression,),
            PHOTOMETRIC: (photometric,),
            FILL_ORDER: (self.fill_order,),
            SAMPLES_PER_PIXEL: (len(self.bits),),
            PLANAR: (2 if self.planes > 1 else 1,),
        }
        if self.extra:
            tags[_EXTRA_SAMPLES] = self.extra
        if self.predictor > 1:
            tags[PREDICTOR] = (self.predictor,)
        return tags


def read_samples(directory: Directory, order: str) -> Samples:
    """Read what an image's pixels are made of; `order` is that of bytes, `<` or `>`.

    Raises `UnsupportedImageFormatError`, which says what would do.
    """
    count = directory.number(SAMPLES_PER_PIXEL, 1)
    bits = directory.numbers(BITS_PER_SAMPLE, (1,))
    if not 1 <= count <= _MOST_SAMPLES:
        raise _refused(f"of {count} samples a pixel")
    bits = bits * count if len(bits) == 1 else bits[:count]
    formats = directory.numbers(_SAMPLE_FORMAT, (_UNSIGNED,))
    # As Pillow has it where nothing is said.
    unsaid = BLACK_IS_ZERO if bits == (16,) else WHITE_IS_ZERO
    samples = Samples(
        photometric=directory.number(PHOTOMETRIC, unsaid),
        bits=bits,
        extra=directory.numbers(_EXTRA_SAMPLES),
        planes=count if count > 1 and directory.number(PLANAR, 1) == 2 else 1,
        compression=directory.number(COMPRESSION, UNCOMPRESSED),
        fill_order=directory.number(FILL_ORDER, 1),
        predictor=directory.number(PREDICTOR, 1),
    )
    _check_codec(samples)
    if unread := set(formats) - {_UNSIGNED, _UNTYPED}:
        raise _refused(f"of {_FORMATS.get(min(unread), 'other ')}numbers")
    _check_mode(samples, order)
    if samples.photometric == CMYK and directory.number(_INK_SET, 1) != 1:
        raise _refused("of other inks than CMYK")
    return samples


def _check_codec(samples: Samples) -> None:
    if samples.compression not in _CODECS:
        name = _OTHER_CODECS.get(samples.compression, f"code {samples.compression}")
        raise UnsupportedImageFormatError(
            f"this TIFF is compressed by {name}: save it with LZW or Deflate"
        )
    if samples.compression in _CCITT and samples.bits != (1,):
        raise _refused("of facsimile compression and more than black and white")
    if samples.predictor not in (1, 2):
        raise _refused(f"of predictor {samples.predictor}")


def _check_mode(samples: Samples, order: str) -> None:
    """Refuse samples that Pillow does not read, or not as they are meant."""
    photometric = samples.tags()[PHOTOMETRIC][0]
    prefix = b"II" if order == "<" else b"MM"
    key = (prefix, photometric, (1,), samples.fill_order, samples.bits, samples.extra)
    mode, raw_mode = TiffImagePlugin.OPEN_INFO.get(key, ("", ""))
    if photometric == YCBCR:
        is_read = mode == "YCbCr" and samples.compression == JPEG and samples.planes == 1
    else:
        is_read = bool(mode) and mode not in _MODES_APART and raw_mode != "I;12"
    if not is_read or (samples.planes > 1 and mode not in _PLANAR_MODES):
        name = _COLOURS.get(samples.photometric, "unknown")
        bits = ", ".join(map(str, samples.bits))
        raise _refused(f"of {name} samples of {bits} bits{' in planes' * (samples.planes > 1)}")


def _refused(what: str) -> UnsupportedImageFormatError:
    return UnsupportedImageFormatError(f"this is a TIFF {what}: {_CONVERT}")
