"""Start the service, send pictures and words to it over HTTP, show what comes back, stop it.

Run as `make demo`. With published weights: photographs. Where the hub cannot be reached: drawings,
and the small model of examples/shapes, which knows them. Near-duplicates must stand out in the
table of cosine similarities, and each query in words must find its subject.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from examples.contact_sheet import Hit, draw_contact_sheet
from examples.gallery import Gallery, hang_drawings, hang_photographs

START_TIMEOUT_S = 600  # a first start downloads the checkpoint
FOLDER = Path("demo")  # what is sent, and the contact sheet
HITS = 5  # of each query
# Those that say what computes; limits and keys of another service have no place here.
SETTINGS = (
    "SIGLIP_MODEL",
    "SIGLIP_REVISION",
    "SIGLIP_MODEL_FALLBACK",
    "SIGLIP_DEVICE",
    "SIGLIP_DTYPE",
)

Vectors = NDArray[np.float32]

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run the demonstration."""
    with running_service() as url, open_client(url) as client:
        model = client.get("/v1/models").raise_for_status().json()["data"][0]
        console.print(f"[bold]{model['id']}[/] on {model['device']} in {model['dtype']}")
        knows_shapes = model["id"] == "shapes"
        explain(knows_shapes=knows_shapes, pretrained=model["pretrained"])
        gallery = hang_drawings() if knows_shapes else hang_photographs()
        vectors = embed_pictures(client, gallery)
        show_similarities(vectors, gallery)
        if model["text"]:
            show_answers(client, vectors, gallery)
    show_curl(gallery, has_texts=bool(model["text"]))


def open_client(url: str) -> httpx.Client:
    """Return a client that goes past any proxy: the service is on this machine."""
    return httpx.Client(base_url=url, timeout=120, trust_env=False)


@contextmanager
def running_service() -> Iterator[str]:
    """Start `python -m app serve` on a free port, wait until it is ready, stop it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SIGLIP_") or name in SETTINGS
    }
    environment = own | {"SIGLIP_PORT": str(port), "SIGLIP_LOG_LEVEL": "warning"}
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
            if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit(f"the service was not ready within {START_TIMEOUT_S} s")


def explain(*, knows_shapes: bool, pretrained: bool) -> None:
    """Say what the vectors know."""
    if knows_shapes:
        console.print(
            "[bold yellow]The hub could not be reached, or SIGLIP_MODEL says so[/]: this is the "
            "small model of the repository. It knows coloured shapes on coloured grounds, and "
            "nothing else; so here are drawings of such. With published weights the same is shown "
            "with photographs.\n"
        )
    elif pretrained:
        console.print("Published weights: vectors compare what pictures show and words say.\n")
    else:
        console.print(
            "[bold yellow]These are random weights[/]: pictures of alike colours and layout still "
            "land close together, but such vectors know nothing of what a picture shows.\n"
        )


def embed_pictures(client: httpx.Client, gallery: Gallery) -> Vectors:
    """Embed all pictures in one request, and show what comes back."""
    files = [("images", (picture.name, picture.jpeg)) for picture in gallery.pictures]
    start = time.perf_counter()
    response = client.post("/embed", files=files).raise_for_status()
    elapsed_s = time.perf_counter() - start
    data = response.json()["data"]
    table = Table("image", "seen", "shape", "first numbers", box=None, title="POST /embed")
    for picture, item in zip(gallery.pictures, data, strict=True):
        seen, vector = item["image"], item["embedding"]
        numbers = ", ".join(f"{value:+.4f}" for value in vector[:3])
        size = f"{seen['width']} x {seen['height']} {seen['format']}"
        table.add_row(picture.name, size, f"({len(vector)},)", f"{numbers}, ...")
    console.print(table)
    rate = len(data) / elapsed_s
    console.print(f"\n{len(data)} images in one request: {elapsed_s:.2f} s, {rate:.1f} images/s")
    timing = response.headers["Server-Timing"].replace(";dur=", " ")
    console.print(f"in the service (ms): {timing}\n")
    return np.array([item["embedding"] for item in data], np.float32)


def show_similarities(vectors: Vectors, gallery: Gallery) -> None:
    """Print the cosine of every pair; pairs of one subject are bold."""
    cosines = vectors @ vectors.T
    subjects = np.array([picture.subject for picture in gallery.pictures])
    same = subjects[:, None] == subjects
    table = Table("100 x cosine", *map(str, range(len(same))), box=None, padding=(0, 1, 0, 0))
    for i, picture in enumerate(gallery.pictures):
        cells = [
            f"[bold green]{cosine:.0f}[/]" if is_same else f"{cosine:.0f}"
            for cosine, is_same in zip(100 * cosines[i], same[i], strict=True)
        ]
        table.add_row(f"{i} {picture.name}", *cells)
    console.print(table)
    once = np.tri(len(same), k=-1, dtype=bool)
    for title, pairs in (("same subject", once & same), ("different subjects", once & ~same)):
        console.print(f"{title}: {cosines[pairs].min():.3f} to {cosines[pairs].max():.3f}")


def show_answers(client: httpx.Client, vectors: Vectors, gallery: Gallery) -> None:
    """Ask for pictures in words; print the best, and draw the ranking."""
    response = client.post("/embed/text", json={"texts": list(gallery.queries)}).raise_for_status()
    texts = np.array([item["embedding"] for item in response.json()["data"]], np.float32)
    table = Table("query", "best picture", "cosine", "", box=None, title="\nPOST /embed/text")
    rankings = {}
    for (query, subject), cosines in zip(gallery.queries.items(), texts @ vectors.T, strict=True):
        best = cosines.argsort()[::-1][:HITS]
        shown = [gallery.pictures[i] for i in best]
        rankings[query] = [
            Hit(picture.jpeg, float(cosines[i]), picture.subject == subject)
            for i, picture in zip(best, shown, strict=True)
        ]
        mark = "[green]right[/]" if rankings[query][0].right else "[red]wrong[/]"
        table.add_row(query, shown[0].name, f"{cosines[best[0]]:.3f}", mark)
    console.print(table)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "ranking.png"
    draw_contact_sheet(rankings).save(path)
    console.print(f"\nThe rankings as a picture: [bold]{path}[/]")


def show_curl(gallery: Gallery, *, has_texts: bool) -> None:
    """Print the commands that repeat this by hand."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "picture.jpg"
    path.write_bytes(gallery.pictures[0].jpeg)
    console.print("\nRepeat it: `make serve` in one terminal, and in another")
    console.print(f"curl localhost:8000/embed --data-binary @{path}")
    if has_texts:
        query = shlex.quote(next(iter(gallery.queries)))
        console.print(f"curl localhost:8000/embed/text -H 'Content-Type: text/plain' -d {query}")


if __name__ == "__main__":
    main()
