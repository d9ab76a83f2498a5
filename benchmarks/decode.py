"""Encoded bytes to the model's input: ours against Pillow and transformers' image processor.

`python -m benchmarks.decode [--shape tiny-patch16-224] [--quick]`

`decode=exact` promises the reference's pixels, bit by bit, and that is checked here. A faster way
that gives other pixels is held against it in two figures: grey levels and the vectors' cosine.
Times are CPU times: all of it is work of one thread. Where they go tells
`benchmarks.decode_stages`; what the faster way costs in answers, `benchmarks.decode_recall`.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from app.engine.embedder import load_embedder
from app.engine.protocol import Embedder, UInt8Array
from app.intake.decode import DecodeLimits, decode_image, open_image
from app.observe.logs import configure_logs
from app.settings import Settings
from benchmarks.material import TINY, encode, least_cosine, photograph_of_size, written_checkpoint
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import time_interleaved

_SIZES = {"640x480": (640, 480), "1.9 Mpx": (1600, 1200), "12 Mpx": (4000, 3000)}
_ENCODINGS: dict[str, dict[str, int]] = {
    "JPEG": {"quality": 90},
    "PNG": {"compress_level": 6},
    "WEBP": {"quality": 80, "method": 2},
}
_FAST = "fast"

Prepare = Callable[[bytes], UInt8Array]
Way = Callable[[bytes], object]


@dataclass(frozen=True)
class _Bench:
    """The ways from bytes to pixels; all but the reference give uint8 (side, side, 3)."""

    embedder: Embedder
    fast_embedder: Embedder
    reference: SiglipImageProcessorPil
    limits: DecodeLimits

    def ours(self, data: bytes) -> UInt8Array:
        """Decode as the service does in decode=exact, which is its default."""
        with open_image(data, self.limits) as image:
            resize = self.embedder.pillow_resize(image.size)
            return np.asarray(image.read(resize=resize).pixels)

    def plain(self, data: bytes) -> torch.Tensor:
        """Decode as one writes it first; normalising included, as the processor does all in one."""
        image = Image.open(io.BytesIO(data)).convert("RGB")
        pixel_values: torch.Tensor = self.reference(image, return_tensors="pt")["pixel_values"]
        return pixel_values

    def fast(self, data: bytes) -> UInt8Array:
        """Decode and resize as the service does in decode=fast."""
        least_side = 3 * self.embedder.info.image_size // 2
        decoded = decode_image(data, self.limits, least_side=least_side)
        return self.fast_embedder.resize(decoded.pixels)

    def draft(self, data: bytes) -> UInt8Array:
        """Let libjpeg decode as small as the model's input allows: less work, more drift."""
        image = Image.open(io.BytesIO(data))
        side = self.embedder.info.image_size
        image.draft("RGB", (side, side))
        return self.embedder.resize(image.convert("RGB"))

    def is_exact(self, data: bytes) -> bool:
        """Tell whether our pixels equal the reference's, as they are before normalising."""
        image = Image.open(io.BytesIO(data)).convert("RGB")
        resized = self.reference(image, do_rescale=False, do_normalize=False, return_tensors="np")[
            "pixel_values"
        ][0]
        return np.array_equal(self.ours(data), resized.transpose(1, 2, 0))

    def drift(self, prepare: Prepare, data: bytes) -> tuple[float, float]:
        """Return how far other pixels are from exact ones: mean grey levels, cosine of vectors."""
        exact, other = self.ours(data), prepare(data)
        vectors = self.embedder.embed(np.stack([exact, other])).pooled
        grey_levels = float(np.abs(exact.astype(int) - other.astype(int)).mean())
        return grey_levels, least_cosine(vectors[:1], vectors[1:])

    def fast_ways(self, image_format: str) -> dict[str, Prepare]:
        """Return what gives other pixels for less time."""
        least = {"least": self.draft} if image_format == "JPEG" else {}
        return {_FAST: self.fast, **least}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    parser.add_argument("--shape", default=TINY, help="whose input size, and for drift vectors")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    configure_logs("error", "console")
    show_machine()
    report = Report("decode")
    with written_checkpoint(options.shape) as checkpoint:
        bench = _Bench(
            embedder=load_embedder(str(checkpoint.folder), "cpu", "float32"),
            fast_embedder=load_embedder(str(checkpoint.folder), "cpu", "float32", decode="fast"),
            reference=SiglipImageProcessorPil.from_pretrained(checkpoint.folder),
            limits=_default_limits(),
        )
        rows = list(_rows(bench, 3 if options.quick else options.rounds))
    report.add_table("decode and resize: ms of CPU time, lower quartiles", rows)
    report.find("decode.exact", float(all(row["exact"] == "yes" for row in rows)))
    largest = next(row for row in rows if row["image"] == "12 Mpx JPEG")
    report.find("decode.fast", float(largest[f"ours / {_FAST}"] or 0))
    report.save()


def _rows(bench: _Bench, rounds: int) -> Iterator[Row]:
    for size_name, size in _SIZES.items():
        photograph = photograph_of_size(*size)
        for image_format, options in _ENCODINGS.items():
            data = encode(photograph, image_format, **options)
            yield {"image": f"{size_name} {image_format}"} | _measure(
                bench, data, image_format, rounds
            )


def _measure(
    bench: _Bench, data: bytes, image_format: str, rounds: int
) -> dict[str, str | float | None]:
    fast = bench.fast_ways(image_format)
    ways: dict[str, Way] = {"ours": bench.ours, "plain": bench.plain, **fast}
    calls = {name: partial(way, data) for name, way in ways.items()}
    timings = time_interleaved(calls, rounds, clock=time.process_time)
    row: dict[str, str | float | None] = {
        "kB": round(len(data) / 1000),
        "ours": timings["ours"].low_s * 1000,
        "plain": timings["plain"].low_s * 1000,
        "ours / plain": timings["ours"].low_s / timings["plain"].low_s,
        "exact": "yes" if bench.is_exact(data) else "NO",
    }
    for name, prepare in fast.items():
        grey_levels, cosine = bench.drift(prepare, data)
        row[name] = timings[name].low_s * 1000
        row[f"ours / {name}"] = timings["ours"].low_s / timings[name].low_s
        row[f"{name}: greys off"] = grey_levels
        row[f"{name}: cosine"] = cosine
    return row


def _default_limits() -> DecodeLimits:
    settings = Settings()
    return DecodeLimits(
        max_image_bytes=settings.max_image_bytes,
        max_pixels=settings.max_pixels,
        max_side=settings.max_side,
        formats=frozenset(settings.formats),
    )


if __name__ == "__main__":
    main()
