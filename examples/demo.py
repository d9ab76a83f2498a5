"""Start the service, send photographs to it over HTTP, show what comes back, stop it.

Run as `make demo`. Four photographs, each with a crop and its mirror image: near-duplicates that
must stand out in the table of cosine similarities.
"""

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import skimage.data
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

# Public domain or CC0, shipped with scikit-image.
PHOTOGRAPHS = ("astronaut", "chelsea", "retina", "rocket")
START_TIMEOUT_S = 600  # a first start downloads the checkpoint

console = Console()


def main() -> None:
    """Run the demonstration."""
    images = dict(make_images())
    with running_service() as url, httpx.Client(base_url=url, timeout=120) as client:
        model = client.get("/healthz").json()
        console.print(f"[bold]{model['model']}[/] on {model['device']} in {model['dtype']}\n")
        files = [("images", (name, data, "image/jpeg")) for name, data in images.items()]
        start = time.perf_counter()
        response = client.post("/embed", files=files)
        elapsed_s = time.perf_counter() - start
        response.raise_for_status()
        answer = response.json()
        show_vectors(answer, list(images))
        show_timings(elapsed_s, len(images), response.headers["Server-Timing"])
        vectors = np.array([item["embedding"] for item in answer["data"]])
        show_similarities(vectors, list(images))
        explain(random_weights="random_weights" in answer["data"][0]["warnings"])
    show_curl(images["astronaut"])


def make_images() -> Iterator[tuple[str, bytes]]:
    """Yield name and JPEG bytes of each photograph, a crop of it, and its mirror image."""
    for name in PHOTOGRAPHS:
        photograph = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        width, height = photograph.size
        crop = photograph.crop((width // 16, height // 16, width - width // 16, height))
        yield name, as_jpeg(photograph)
        yield f"{name}, crop", as_jpeg(crop)
        yield f"{name}, mirror", as_jpeg(ImageOps.mirror(photograph))


def as_jpeg(image: Image.Image) -> bytes:
    """Encode an image as a person would upload it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


@contextmanager
def running_service() -> Iterator[str]:
    """Start `python -m app serve` on a free port, wait until it is ready, stop it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"SIGLIP_PORT": str(port), "SIGLIP_LOG_LEVEL": "warning"}
    environment["SIGLIP_LOG_FORMAT"] = "console"
    service = subprocess.Popen([sys.executable, "-m", "app", "serve"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        with console.status("starting the service (a first start downloads the checkpoint)"):
            wait_until_ready(service, url)
        yield url
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(timeout=60)


def wait_until_ready(service: subprocess.Popen[bytes], url: str) -> None:
    """Poll /readyz; leaves the program when the service stops or never gets ready."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if service.poll() is not None:
            sys.exit("the service did not start; its reason is above")
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit(f"the service was not ready within {START_TIMEOUT_S} s")


def show_vectors(answer: dict[str, Any], names: list[str]) -> None:
    """Print shape and first numbers of every vector."""
    table = Table("image", "seen", "shape", "first numbers", box=None, title="POST /embed")
    for name, item in zip(names, answer["data"], strict=True):
        seen, vector = item["image"], item["embedding"]
        numbers = ", ".join(f"{value:+.4f}" for value in vector[:3])
        size = f"{seen['width']} x {seen['height']} {seen['format']}"
        table.add_row(name, size, f"({len(vector)},)", f"{numbers}, ...")
    console.print(table)


def show_timings(elapsed_s: float, images: int, server_timing: str) -> None:
    """Print how long the one request took, and where."""
    rate = images / elapsed_s
    console.print(f"\n{images} images in one request: {elapsed_s:.2f} s, {rate:.1f} images/s")
    console.print(f"in the service (ms): {server_timing.replace(';dur=', ' ')}\n")


def show_similarities(vectors: np.ndarray[Any, Any], names: list[str]) -> None:
    """Print the cosine of every pair; pairs of the same photograph are bold."""
    cosines = vectors @ vectors.T
    table = Table("cosine", *map(str, range(len(names))), box=None, padding=(0, 1, 0, 0))
    for i, name in enumerate(names):
        cells = [f"{cosine:.2f}" for cosine in cosines[i]]
        bold = [f"[bold green]{cell}[/]" for cell in cells]
        same = [same_photograph(name, other) for other in names]
        table.add_row(f"{i} {name}", *(bold[j] if same[j] else cells[j] for j in range(len(names))))
    console.print(table)
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    for title, wanted in (("same photograph", True), ("different photographs", False)):
        found = [cosines[i, j] for i, j in pairs if same_photograph(names[i], names[j]) is wanted]
        console.print(f"{title}: {min(found):.3f} to {max(found):.3f}")


def same_photograph(name: str, other: str) -> bool:
    """Tell whether two images were made from one photograph."""
    return name.partition(",")[0] == other.partition(",")[0]


def explain(*, random_weights: bool) -> None:
    """Say what the table shows and what it does not."""
    if random_weights:
        console.print(
            "\n[bold yellow]These are random weights[/]: the hub could not be reached, or "
            "SIGLIP_MODEL asks for them. Images of alike colours and layout still land close "
            "together, so near-duplicates stand out; but such vectors know nothing of what a "
            "picture shows. With published weights they do."
        )
    else:
        console.print("\nPublished weights: cosines compare what the pictures show.")


def show_curl(photograph: bytes) -> None:
    """Print the command that repeats this by hand."""
    path = Path(tempfile.gettempdir()) / "astronaut.jpg"
    path.write_bytes(photograph)
    console.print("\nRepeat it: `make serve` in one terminal, and in another", highlight=False)
    console.print(
        f"curl localhost:8000/embed -H 'Content-Type: image/jpeg' --data-binary @{path}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
