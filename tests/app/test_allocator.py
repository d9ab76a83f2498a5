"""Memory of large images goes back, that of layers stays, and tensors lie on huge pages."""

import ctypes
import mmap
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from app.allocator import move_to_huge_pages
from tests.app.images import encode


def test_the_memory_of_large_images_goes_back_to_the_system() -> None:
    """In a process of its own, on threads as in the service: each has its own heap."""
    data = encode(Image.new("L", (7_000, 7_000)), "PNG")
    script = """
import re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from app.allocator import configure_allocators
from app.intake.decode import DecodeLimits, decode_image

def rss_mib():
    return int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

configure_allocators()
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


def test_memory_of_a_layer_is_there_for_the_next() -> None:
    """Given back after each, as pages that have to be zeroed anew, it cost a twentieth."""
    script = """
import resource
from concurrent.futures import ThreadPoolExecutor
import torch
from app.allocator import configure_allocators

def run_layers():
    patches = torch.ones(784, 64, dtype=torch.bfloat16)
    weight = torch.ones(3072, 64, dtype=torch.bfloat16)
    for _ in range(20):
        torch.nn.functional.linear(patches, weight).relu()
        patches = patches + 1

configure_allocators()
with ThreadPoolExecutor(1) as pool:
    pool.submit(run_layers).result()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pool.submit(run_layers).result()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    ordinary_pages = os.environ | {"THP_MEM_ALLOC_ENABLE": "0"}  # so that they can be counted
    shown = subprocess.run(
        [sys.executable, "-c", script], env=ordinary_pages, capture_output=True, check=True
    )

    assert int(shown.stdout) < 10_000  # anew each time it would be tens of thousands


def _has_huge_pages_on_demand() -> bool:
    """Tell whether the kernel gives huge pages to who asks, and not to all."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.is_file() and "[madvise]" in setting.read_text()


@pytest.mark.skipif(not _has_huge_pages_on_demand(), reason="no huge pages on demand here")
def test_tensors_lie_on_huge_pages_though_torch_is_imported_already() -> None:
    script = """
import re
from pathlib import Path
import torch
from app.allocator import configure_allocators

configure_allocators()
tensor = torch.ones(2**26, dtype=torch.uint8)
rollup = Path("/proc/self/smaps_rollup").read_text()
print(int(re.search(r"AnonHugePages:\\s*(\\d+)", rollup)[1]) / 1024)
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    assert float(shown.stdout) > 32  # MiB, of 64


def test_memory_in_use_is_moved_to_huge_pages_unharmed() -> None:
    size = 2**23
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    content = memory[:] = bytes(range(256)) * (size // 256)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    part = address + size // 2 - 100

    move_to_huge_pages(part, 100)

    assert memory[:] == content
    if _collapses_pages():
        assert _huge_bytes_around(part) >= 2**21


def test_what_is_no_memory_is_left_alone() -> None:
    move_to_huge_pages(2**21, 100)


def _collapses_pages() -> bool:
    release = tuple(map(int, platform.release().split(".")[:2]))
    return Path("/sys/kernel/mm/transparent_hugepage").is_dir() and release >= (6, 1)


def _huge_bytes_around(address: int) -> int:
    """Return how much lies on huge pages, of the mapping that an address is in."""
    mappings = re.findall(
        r"^([0-9a-f]+)-([0-9a-f]+) (?:.*\n)+?AnonHugePages:\s*(\d+) kB",
        Path("/proc/self/smaps").read_text(),
        re.MULTILINE,
    )
    return next(
        1024 * int(huge)
        for start, end, huge in mappings
        if int(start, 16) <= address < int(end, 16)
    )
