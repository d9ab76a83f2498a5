"""Memory of large images: held while they are decoded, and no longer."""

import subprocess
import sys

from PIL import Image

from tests.app.images import encode


def test_the_memory_of_large_images_goes_back_to_the_system() -> None:
    """In a process of its own, on threads as in the service: each has its own heap."""
    data = encode(Image.new("L", (7_000, 7_000)), "PNG")
    script = """
import re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from app.allocator import return_large_blocks
from app.intake.decode import DecodeLimits, decode_image

def rss_mib():
    return int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

return_large_blocks()
data = sys.stdin.buffer.read()
limits = DecodeLimits(2**20, 50_000_000, 16384, frozenset({"png"}))
before = rss_mib()
with ThreadPoolExecutor(2) as pool:
    for _ in pool.map(lambda _: decode_image(data, limits).size, range(6)):
        pass
    print(rss_mib() - before)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=True
    )

    assert float(shown.stdout) < 64
