"""Where the time of exact preparing goes, stage by stage, and what all of it takes in either mode.

`python -m benchmarks.decode_stages [--rounds 7] [--quick]`

Stages are those of the plain way: all of an image laid on white, turned, and resized to 224 x 224,
here and on pages of 4 kB. The service does less of it, in a decode process with huge pages; that
the pixels are the same is checked. Times are CPU times. A JPEG's colour is what its decoding takes
beyond that of luma alone: chroma's transform and upsampling, and the conversion to RGB. `fast` is
decode=fast as the service does it: what is decoded crosses from the process and is resized here.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from app.allocator import configure_allocators
from app.intake.decode import DecodeLimits
from app.intake.decode_process import DecodeProcess, Grant, PillowResize
from app.intake.formats import FORMATS
from benchmarks.material import encode, photograph_of_size
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import time_interleaved
from model import SiglipImageProcessor
from model.image_processing_base import convert_to_rgb

_SIDE, _RESAMPLE = 224, Image.Resampling.BICUBIC
_INPUT = PillowResize((_SIDE, _SIDE), _RESAMPLE)
_FAST = SiglipImageProcessor(height=_SIDE, width=_SIDE, resample=_RESAMPLE, backend="torch")
_LIMITS = DecodeLimits(2**28, 10**8, 65_535, frozenset({"jpeg", "png", "webp"}))
_VGA, _2_MPX, _12_MPX, _48_MPX = (640, 480), (1600, 1200), (4000, 3000), (8000, 6000)
_ON_ITS_SIDE = 6  # a portrait taken with a phone


@dataclass(frozen=True)
class _File:
    """What is encoded, and how."""

    size: tuple[int, int]
    format: str = "JPEG"
    mode: str = "RGB"
    options: Mapping[str, int] = field(default_factory=dict)
    orientation: int = 1

    def encode(self) -> bytes:
        photograph = photograph_of_size(*self.size).convert(self.mode)
        if self.orientation == 1:
            return encode(photograph, self.format, **self.options)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = self.orientation
        file = io.BytesIO()
        photograph.save(file, self.format, exif=exif, **self.options)
        return file.getvalue()


_QUALITY = {"quality": 90}
_FILES = {
    "640x480 JPEG": _File(_VGA, options=_QUALITY),
    "1.9 Mpx JPEG": _File(_2_MPX, options=_QUALITY),
    "1.9 Mpx PNG": _File(_2_MPX, "PNG", options={"compress_level": 6}),
    "1.9 Mpx WebP": _File(_2_MPX, "WEBP", options={"quality": 80, "method": 2}),
    "12 Mpx JPEG": _File(_12_MPX, options=_QUALITY),
    "12 Mpx JPEG, on its side": _File(_12_MPX, options=_QUALITY, orientation=_ON_ITS_SIDE),
    "12 Mpx JPEG, 4:4:4": _File(_12_MPX, options=_QUALITY | {"subsampling": 0}),
    "12 Mpx JPEG, progressive": _File(_12_MPX, options=_QUALITY | {"progressive": 1}),
    "12 Mpx JPEG, grey": _File(_12_MPX, mode="L", options=_QUALITY),
    "48 Mpx JPEG": _File(_48_MPX, options=_QUALITY),
    "48 Mpx JPEG, progressive": _File(_48_MPX, options=_QUALITY | {"progressive": 1}),
    "12 Mpx PNG": _File(_12_MPX, "PNG", options={"compress_level": 6}),
    "12 Mpx PNG, opaque alpha": _File(_12_MPX, "PNG", "RGBA", {"compress_level": 6}),
    "12 Mpx WebP": _File(_12_MPX, "WEBP", options={"quality": 80, "method": 2}),
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_stages")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    show_machine()
    configure_allocators()  # as the decode process does
    torch.set_num_threads(1)
    report = Report("decode_stages")
    process = DecodeProcess(_LIMITS)
    rows = list(_rows(process, 2 if options.quick else options.rounds))
    process.close()
    report.add_table("exact preparing, stage by stage: ms of CPU time, lower quartiles", rows)
    report.find("decode_stages.exact", float(all(row["equal"] == "yes" for row in rows)))
    report.save()


def _rows(process: DecodeProcess, rounds: int) -> Iterator[Row]:
    for name, file in _FILES.items():
        data = file.encode()
        stages = _stages(data)
        here = _times(stages, rounds, time.process_time)
        plainly = sum(here.values()) - here.get("of it luma", 0)
        ours = partial(_in_process, process, data)
        there = _times(
            {"exact": ours, "fast": partial(_fast, process, data)},
            rounds,
            lambda: time.process_time() + process.child.cpu_s,
        )
        yield {
            "image": name,
            "kB": round(len(data) / 1000),
            "rebuild": here["rebuild"],
            "decode": here["decode"],
            "of it luma": here.get("of it luma"),
            "to RGB": here.get("to RGB"),
            "turn": here.get("turn"),
            "rows": here["rows"],
            "columns": here["columns"],
            "plainly": plainly,
            "exact": there["exact"],
            "plainly / exact": plainly / there["exact"],
            "fast": there["fast"],
            "exact / fast": there["exact"] / there["fast"],
            "equal": "yes" if ours() == _plainly(data) else "NO",
        }


def _stages(data: bytes) -> dict[str, Callable[[], object]]:
    """Return what each stage does with what the stage before has left."""
    stored = _decoded(data)
    rgb = convert_to_rgb(stored)
    upright = ImageOps.exif_transpose(rgb) if rgb.getexif().get(0x112, 1) != 1 else rgb
    narrow = upright.resize((_SIDE, upright.height), _RESAMPLE)
    stages: dict[str, Callable[[], object]] = {
        "rebuild": partial(FORMATS[(stored.format or "").lower()].outline, data, 10**8),
        "decode": partial(_decoded, data),
    }
    if stored.format == "JPEG" and stored.mode == "RGB":
        stages["of it luma"] = partial(_decoded, data, "L")
    if stored.mode != "RGB":
        stages["to RGB"] = partial(convert_to_rgb, stored)
    if upright is not rgb:
        stages["turn"] = partial(rgb.transpose, Image.Transpose.ROTATE_270)
    return stages | {
        "rows": partial(upright.resize, narrow.size, _RESAMPLE),
        "columns": partial(narrow.resize, (_SIDE, _SIDE), _RESAMPLE),
    }


def _times(
    calls: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    timings = time_interleaved(calls, rounds, clock=clock)
    return {name: timing.low_s * 1000 for name, timing in timings.items()}


def _decoded(data: bytes, mode: str | None = None) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    if mode:
        image.draft(mode, None)
    image.load()
    return image


def _plainly(data: bytes) -> bytes:
    upright = ImageOps.exif_transpose(convert_to_rgb(_decoded(data)))
    return np.asarray(upright.resize(*_INPUT)).tobytes()


def _in_process(process: DecodeProcess, data: bytes) -> bytes:
    return bytes(process.decode(data, None, lambda _: _INPUT, Grant(2**40, _INPUT)).rgb)


def _fast(process: DecodeProcess, data: bytes) -> object:
    received = process.decode(data, 3 * _SIDE // 2, lambda _: None, Grant(2**40, None))
    width, height = received.pixels_size
    pixels = np.frombuffer(received.rgb, np.uint8).reshape(height, width, 3)
    return _FAST.resize(Image.fromarray(pixels))


if __name__ == "__main__":
    main()
