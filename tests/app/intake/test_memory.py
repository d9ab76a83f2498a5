"""The budget of memory for decoding, and what decoding really takes."""

import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from app.intake.memory import DecodeMemory
from tests.app.images import encode
from tests.app.intake.mutants import chunk
from tests.app.intake.test_heic import with_properties

WAIT_S = 30
SIDE = 2000


class Reader(threading.Thread):
    """Holds a share of the budget until it is told to leave."""

    def __init__(self, memory: DecodeMemory, size: int) -> None:
        super().__init__(daemon=True)
        self.memory, self.size = memory, size
        self.inside, self.leave = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self.memory.reserved(self.size):
            self.inside.set()
            assert self.leave.wait(WAIT_S)

    def end(self) -> None:
        self.leave.set()
        self.join(WAIT_S)


def is_kept_out(reader: Reader) -> bool:
    """Tell whether a reader is still waiting after it had the time to come in."""
    return not reader.inside.wait(0.05)


def test_shares_that_fit_are_held_side_by_side() -> None:
    memory = DecodeMemory(100)
    readers = [Reader(memory, 50), Reader(memory, 50)]

    assert all(reader.inside.wait(WAIT_S) for reader in readers)

    third = Reader(memory, 1)
    assert is_kept_out(third)
    readers[0].end()
    assert third.inside.wait(WAIT_S)
    for reader in (readers[1], third):
        reader.end()


def test_a_large_share_is_not_overtaken_for_ever() -> None:
    memory = DecodeMemory(100)
    small = Reader(memory, 60)
    assert small.inside.wait(WAIT_S)
    large = Reader(memory, 90)
    assert is_kept_out(large)
    late = Reader(memory, 10)

    assert is_kept_out(late)  # though it would fit beside the first
    small.end()
    assert large.inside.wait(WAIT_S)
    assert late.inside.wait(WAIT_S)
    for reader in (large, late):
        reader.end()


def test_more_than_the_budget_is_held_alone() -> None:
    memory = DecodeMemory(100)
    huge = Reader(memory, 1000)
    assert huge.inside.wait(WAIT_S)
    other = Reader(memory, 1)
    assert is_kept_out(other)
    huge.end()
    assert other.inside.wait(WAIT_S)
    other.end()


def test_a_share_comes_back_after_an_error() -> None:
    memory = DecodeMemory(100)
    with pytest.raises(ValueError, match="broken"), memory.reserved(100):
        raise ValueError("broken")

    start = time.monotonic()
    with memory.reserved(100):
        assert time.monotonic() - start < WAIT_S


_DECODE = """
import re, sys
from pathlib import Path
from app.intake.decode import DecodeLimits, open_image
from app.intake.formats import FORMATS, load_decoders
load_decoders(FORMATS)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
limits = DecodeLimits(10**9, 10**8, 10**5, frozenset(FORMATS))
data = Path(sys.argv[1]).read_bytes()
before = peak()
image = open_image(data, limits)
decoded = image.read()
print(peak() - before, image.decode_bytes)
"""
_DECODE_AND_RESIZE = "from model import SiglipImageProcessor" + _DECODE.replace(
    "print", "SiglipImageProcessor(backend='torch').resize(decoded.pixels)\nprint"
)


def picture(mode: str) -> Image.Image:
    """Draw gradients in a mode."""
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE))
    if mode == "I;16":
        return Image.fromarray((ramp * 8).astype(np.uint16))
    grey = Image.fromarray((ramp % 256).astype(np.uint8))
    if mode == "1":
        return grey.convert("1")
    if mode == "P":
        return Image.merge("RGB", [grey] * 3).quantize(16, method=Image.Quantize.FASTOCTREE)
    return Image.merge(mode, [grey] * len(mode)) if mode != "L" else grey


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [
        ("jpeg", "RGB", {"progressive": True, "subsampling": 0}),
        ("jpeg", "CMYK", {"progressive": True, "subsampling": 0}),
        ("png", "RGB", {}),
        ("png", "RGB", {"transparency": (0, 0, 0)}),
        ("png", "RGBA", {}),
        ("png", "I;16", {}),
        ("png", "I;16", {"transparency": 3}),
        ("webp", "RGB", {"method": 0}),
        ("webp", "RGBA", {"method": 0, "lossless": True}),
        ("gif", "P", {}),
        ("gif", "P", {"transparency": 0}),
        ("bmp", "RGB", {}),
        ("avif", "RGB", {"speed": 10, "subsampling": "4:4:4"}),
        ("avif", "RGBA", {"speed": 10}),
        ("tiff", "1", {"compression": "group4"}),
        ("tiff", "L", {}),
        ("tiff", "I;16", {"compression": "tiff_lzw"}),
        ("tiff", "RGB", {"compression": "jpeg"}),
        ("tiff", "RGB", {}),
        ("tiff", "RGBA", {"compression": "tiff_lzw"}),
        ("tiff", "CMYK", {}),
        ("heic", "L", {"enc_params": {"preset": "ultrafast"}}),
        ("heic", "RGB", {"enc_params": {"preset": "ultrafast"}, "chroma": 444}),
        ("heic", "RGBA", {"enc_params": {"preset": "ultrafast"}}),
    ],
)
@pytest.mark.parametrize("read", ["read()", "read(resize=((512, 512), 3))"])
def test_decoding_takes_no_more_than_it_reserves(
    tmp_path: Path, image_format: str, mode: str, options: dict[str, object], read: str
) -> None:
    exif = Image.Exif()
    exif[0x112] = 6  # on its side: turning it takes memory too
    turned = {} if image_format in ("gif", "bmp") else {"exif": exif.tobytes()}
    file = tmp_path / "picture"
    file.write_bytes(encode(picture(mode), image_format, **options, **turned))

    taken, reserved = run_measured(_DECODE.replace("read()", read), file)

    assert taken <= reserved + 2**22, f"{taken / SIDE**2:.1f} bytes a pixel"
    assert taken >= SIDE**2 * (1 if "resize" in read else 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_a_clear_colour_of_16_bits_takes_no_more_than_it_reserves(tmp_path: Path) -> None:
    file = tmp_path / "picture"
    rows = zlib.compress(bytes((1 + 6 * SIDE) * SIDE), 1)
    header = struct.pack(">2I5B", SIDE, SIDE, 16, 2, 0, 0, 0)
    on_its_side = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    parts = (b"IHDR", header), (b"eXIf", on_its_side), (b"tRNS", bytes(6)), (b"IDAT", rows)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))

    taken, reserved = run_measured(_DECODE, file)

    assert taken <= reserved + 2**22, f"{taken / SIDE**2:.1f} bytes a pixel"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
@pytest.mark.parametrize("photometric", ["rgb", "separated"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_a_tiff_of_16_bits_in_one_strip_takes_no_more_than_it_reserves(
    tmp_path: Path, photometric: str, planarconfig: str
) -> None:
    file = tmp_path / "picture"
    deep = np.repeat(np.add.outer(np.arange(SIDE), np.arange(SIDE))[None], 4, 0)
    tifffile.imwrite(
        file,
        (deep if planarconfig == "separate" else deep.transpose(1, 2, 0)).astype(np.uint16),
        photometric=photometric,
        planarconfig=planarconfig,
        rowsperstrip=SIDE,
        metadata=None,
        extratags=[(0x112, 3, 1, 6, True)],
    )

    taken, reserved = run_measured(_DECODE, file)

    assert taken <= reserved + 2**22, f"{taken / SIDE**2:.1f} bytes a pixel"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_a_heic_of_12_bits_on_its_side_takes_no_more_than_it_reserves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", True)
    deep = np.repeat(np.add.outer(np.arange(SIDE), np.arange(SIDE))[..., None], 3, 2)
    image = pillow_heif.from_bytes("RGB;16", (SIDE, SIDE), (deep * 16).astype("<u2").tobytes())
    file = tmp_path / "picture"
    image.save(file, chroma=444, enc_params={"preset": "ultrafast"})
    file.write_bytes(with_properties(file.read_bytes(), (b"irot", b"\1")))

    taken, reserved = run_measured(_DECODE, file)

    assert taken <= reserved + 2**22, f"{taken / SIDE**2:.1f} bytes a pixel"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_what_is_reserved_is_enough_to_resize_with_torch(tmp_path: Path) -> None:
    file = tmp_path / "picture"
    picture("RGB").resize((2 * SIDE, 2 * SIDE)).save(file, "bmp")  # a byte a pixel counts

    decoding, reserved = run_measured(_DECODE, file)
    both, _ = run_measured(_DECODE_AND_RESIZE, file)

    assert decoding < both <= reserved + 2**22, f"{both / (4 * SIDE**2):.1f} bytes a pixel"


def run_measured(code: str, file: Path) -> list[int]:
    """Return the bytes that a process took of memory, and those it reserved."""
    printed = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    ).stdout
    return [int(number) for number in printed.split()]
