"""The `embed` command against its parts: the model alone, and reading and decoding alone.

On a CPU both want the same cores, so that the command can at best do what one after the other does,
and a little more where the model leaves cores idle.

`python -m benchmarks.bulk [--only tiny|base] [--rounds 5] [--quick]`
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.intake.decode import DecodeLimits, decode_image
from benchmarks.in_process import InProcess
from benchmarks.material import BASE, TINY, encode, photograph_of_size, written_checkpoint
from benchmarks.processes import ROOT
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import Timing
from model import SiglipImageProcessor

_PARQUET = ("pooled.parquet", "patches.parquet")
# Images for some seconds of work, and outputs: next to the base model formats make no difference.
_SHAPES = {
    "tiny": (TINY, 1000, (*_PARQUET, "pooled.npy", "pooled.jsonl")),
    "base": (BASE, 120, _PARQUET),
}
_SECONDS = 8.0
_LIMITS = DecodeLimits(20 * 2**20, 50_000_000, 16384, frozenset({"jpeg"}))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument("--only", choices=_SHAPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of few images")
    options = parser.parse_args()
    show_machine()
    report = Report("bulk")
    for name in [options.only] if options.only else _SHAPES:
        _measure(report, name, options.rounds, quick=options.quick)
    report.save()


def _measure(report: Report, name: str, rounds: int, *, quick: bool) -> None:
    shape, images, outputs = _SHAPES[name]
    if quick:
        images, rounds = images // 5, 1
    decoding: list[float] = []
    embedding: dict[str, list[float]] = {output: [] for output in outputs}
    with (
        tempfile.TemporaryDirectory(prefix="siglip-bulk-") as folder,
        written_checkpoint(shape) as checkpoint,
        InProcess.running(checkpoint.folder) as in_process,
    ):
        photographs = Path(folder) / "photographs"
        _write_photographs(photographs, images)
        for _ in range(rounds):
            in_process.run(_SECONDS)
            decoding.append(_decode(photographs, checkpoint.folder) / images)
            for output, s_per_image in embedding.items():
                seconds = _embed(photographs, Path(folder) / output, checkpoint.folder)
                s_per_image.append(seconds / images)
        model_s = in_process.s_per_image
    took_s = {"model alone": model_s, "decoding alone": Timing(tuple(decoding)).low_s}
    took_s["one after the other"] = reference_s = sum(took_s.values())
    took_s |= {output: Timing(tuple(times)).low_s for output, times in embedding.items()}
    rows: list[Row] = [
        {"": what, "images/s": 1 / seconds, "of one after the other": reference_s / seconds}
        for what, seconds in took_s.items()
    ]
    report.add_table(f"{shape}, {images} JPEGs of 640x480", rows)


def _write_photographs(folder: Path, images: int) -> None:
    """Write JPEGs of different names and one content."""
    folder.mkdir()
    jpeg = encode(photograph_of_size(640, 480), "JPEG", quality=90)
    for number in range(images):
        (folder / f"{number:06}.jpg").write_bytes(jpeg)


def _decode(photographs: Path, model: Path) -> float:
    """Read, decode and resize all files on as many threads as cores; return the seconds."""
    processor = SiglipImageProcessor.from_pretrained(model)

    def prepare(path: Path) -> None:
        processor.resize(decode_image(path.read_bytes(), _LIMITS).pixels)

    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(prepare, photographs.iterdir()))
    return time.perf_counter() - start


def _embed(photographs: Path, output: Path, model: Path) -> float:
    """Embed all files; return the seconds from the first read to the last byte written."""
    kind = output.stem
    command = ["-m", "app", "embed", str(photographs), "-o", str(output), "--output", kind]
    environment = os.environ | {"SIGLIP_MODEL": str(model), "SIGLIP_DEVICE": "cpu"}
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    for left in output.parent.glob(f"{output.name}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    seconds: float = json.loads(ended.stdout.splitlines()[-1])["seconds"]
    return seconds


if __name__ == "__main__":
    main()
