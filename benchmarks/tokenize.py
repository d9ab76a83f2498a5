"""What texts cost to tokenise: short ones, hostile ones, and a vocabulary of published size.

`python -m benchmarks.tokenize`

Times are CPU time of one thread, memory is resident. The vocabularies are made up, of the published
sizes: 32,000 pieces for the first generation, 256,000 tokens and 510,000 merges for SigLIP 2.
"""

import ctypes
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.report import Report, Row, show_machine
from benchmarks.vocabularies import make_spiece_model, make_tokenizer_json
from model.tokenization_siglip import SiglipTokenizer
from model.tokenization_siglip2 import Siglip2Tokenizer

_SHORT_TEXT = "a red bicycle on the street"
_TEXT_BYTES = 8192
_HOSTILE = {"one letter": "a", "one combining mark": "\u0301", "one emoji": "\U0001f600"}
# One that sentencepiece's normaliser makes eighteen of, and spellings of special tokens.
_HOSTILE |= {"one ligature of 18": "\ufdfa", "special tokens": "<eos>", "line ends": "\n"}
_SHORT_ROUNDS = 2000
_GIL_S = 1.0

_Tokenizer = SiglipTokenizer | Siglip2Tokenizer


def main() -> None:
    """Measure both generations, print and save."""
    report = Report("tokenize")
    show_machine()
    with tempfile.TemporaryDirectory() as name:
        v1, v2 = Path(name, "spiece.model"), Path(name, "tokenizer.json")
        v1.write_bytes(make_spiece_model())
        v2.write_text(json.dumps(make_tokenizer_json()))
        rows = [
            _measure_load("SiglipTokenizer", partial(SiglipTokenizer, v1), v1),
            _measure_load("Siglip2Tokenizer", partial(Siglip2Tokenizer, v2), v2),
            _measure_load("the library's own", partial(Tokenizer.from_file, str(v2)), v2),
        ]
        tokenizers: list[_Tokenizer] = [SiglipTokenizer(v1), Siglip2Tokenizer(v2)]
    report.add_table("loading", rows)
    report.add_table("texts", [row for one in tokenizers for row in _text_rows(one)])
    report.add_table("beside another thread", [_measure_gil(one) for one in tokenizers])
    report.save()


def _measure_load(name: str, load: Callable[[], object], path: Path) -> Row:
    """Load a tokenizer; its memory also after the allocator gave back what is free."""
    trim = ctypes.CDLL(None).malloc_trim
    trim(0)
    before = _resident_bytes()
    started = time.process_time()
    tokenizer = load()
    seconds = time.process_time() - started
    loaded = _resident_bytes()
    trim(0)
    trimmed = _resident_bytes()
    del tokenizer
    return {
        "tokenizer": name,
        "file MB": path.stat().st_size / 1e6,
        "load ms": seconds * 1000,
        "resident MB": (loaded - before) / 1e6,
        "resident MB, trimmed": (trimmed - before) / 1e6,
    }


def _text_rows(tokenizer: _Tokenizer) -> Iterator[Row]:
    """Time a short text, and hostile ones of 8 KiB and of 128 times as much."""
    name = type(tokenizer).__name__
    short = _time([_SHORT_TEXT] * _SHORT_ROUNDS, tokenizer) / _SHORT_ROUNDS
    yield {"tokenizer": name, "text": "short", "bytes": len(_SHORT_TEXT), "ms": short * 1000}
    for kind, fragment in _HOSTILE.items():
        text = fragment * (_TEXT_BYTES // len(fragment.encode()))
        small, large = _time([text] * 10, tokenizer) / 10, _time([text * 128], tokenizer)
        yield {
            "tokenizer": name,
            "text": kind,
            "bytes": len(text.encode()),
            "ms": small * 1000,
            "1 MiB: x 128 texts": large / small / 128,
            "256 texts: s": small * 256,
        }


def _time(texts: list[str], tokenizer: _Tokenizer) -> float:
    started = time.process_time()
    for text in texts:
        tokenizer.encode(text)
    return time.process_time() - started


def _measure_gil(tokenizer: _Tokenizer) -> Row:
    """Tell how fast a thread of plain Python runs beside one that tokenises long texts."""
    counted = [0]
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        alone = _count_while(counted, lambda: time.sleep(0.01))
        beside = _count_while(counted, lambda: tokenizer.encode("abc def " * 1024))
    finally:
        stop.set()
        thread.join()
    return {"tokenizer": type(tokenizer).__name__, "speed of the other": beside / alone}


def _count_while(counted: list[int], work: Callable[[], object]) -> float:
    before, started = counted[0], time.perf_counter()
    while time.perf_counter() < started + _GIL_S:
        work()
    return (counted[0] - before) / (time.perf_counter() - started)


def _resident_bytes() -> int:
    kilobytes = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return int(kilobytes) * 1024


if __name__ == "__main__":
    main()
