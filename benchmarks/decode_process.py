"""What it costs to decode in a process of its own, and what honest files cost: its limits follow.

`python -m benchmarks.decode_process [--rounds 15]`
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image

from app.intake.decode import DecodeLimits, decode_image
from app.intake.decode_process import DecodeProcess, Grant, PillowResize
from benchmarks.material import encode, photograph_of_size
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import time_interleaved

_LIMITS = DecodeLimits(2**28, 10**8, 65_535, frozenset({"gif", "jpeg", "png", "webp"}))
_SIZES = {"224x224": (224, 224), "640x480": (640, 480), "12 Mpx": (4000, 3000)}
_INPUT = PillowResize((224, 224), Image.Resampling.BICUBIC)
_LARGE = (9248, 6936)
_LARGE_FILES: dict[str, tuple[str, dict[str, int]]] = {
    "JPEG": ("JPEG", {"quality": 90}),
    "JPEG, progressive, 4:4:4": ("JPEG", {"quality": 85, "progressive": 1, "subsampling": 0}),
    "PNG": ("PNG", {"compress_level": 1}),
    "WEBP": ("WEBP", {"quality": 70, "method": 0}),
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_process")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    show_machine()
    report = Report("decode_process")
    process = DecodeProcess(_LIMITS)
    report.add_table(
        "decode and resize a JPEG: ms, lower quartiles", list(_overhead_rows(process, rounds))
    )
    process.close()
    report.add_table("start a process and decode: ms", [_start_row(rounds)])
    report.add_table("honest files of 64 megapixels: CPU time", list(_large_rows()))
    report.save()


def _overhead_rows(process: DecodeProcess, rounds: int) -> Iterator[Row]:
    for name, size in _SIZES.items():
        data = encode(photograph_of_size(*size), "JPEG", quality=90)
        ways: dict[str, Callable[[], object]] = {
            "here": partial(_decode_here, data),
            "process": partial(_decode_there, process, data),
        }
        wall = time_interleaved(ways, rounds)
        cpu = time_interleaved(
            ways, rounds, clock=lambda: time.process_time() + process.child.cpu_s
        )
        yield {
            "image": name,
            "kB": round(len(data) / 1000),
            "here, CPU": cpu["here"].low_s * 1000,
            "process, CPU of both": cpu["process"].low_s * 1000,
            "process / here": cpu["process"].low_s / cpu["here"].low_s,
            "here, wall": wall["here"].low_s * 1000,
            "process, wall": wall["process"].low_s * 1000,
        }


def _start_row(rounds: int) -> Row:
    data = encode(photograph_of_size(224, 224), "JPEG", quality=90)

    def start() -> None:
        process = DecodeProcess(_LIMITS)
        _decode_there(process, data)
        process.close()

    timing = time_interleaved({"start": start}, rounds)["start"]
    return {"lower quartile": timing.low_s * 1000, "median": timing.median_s * 1000}


def _large_rows() -> Iterator[Row]:
    photograph = photograph_of_size(*_LARGE)
    for name, (image_format, options) in _LARGE_FILES.items():
        data = encode(photograph, image_format, **options)
        begin = time.thread_time()
        _decode_here(data)
        seconds = time.thread_time() - begin
        pixels = _LARGE[0] * _LARGE[1]
        yield {
            "file": name,
            "MB": len(data) / 1e6,
            "s": seconds,
            "ns a pixel": seconds / pixels * 1e9,
        }


def _decode_here(data: bytes) -> object:
    return decode_image(data, _LIMITS).pixels.resize(*_INPUT)


def _decode_there(process: DecodeProcess, data: bytes) -> object:
    return process.decode(data, None, lambda _: _INPUT, Grant(8 * 2**20, _INPUT))


if __name__ == "__main__":
    main()
