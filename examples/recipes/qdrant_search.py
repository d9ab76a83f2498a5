"""Search images by image or by text with Qdrant, here in a folder and without its server.

Run as `python examples/recipes/qdrant_search.py index vectors.parquet vectors.qdrant`, then
`... search vectors.qdrant --text "a red bicycle"`, with the service running. Or copy it: it needs
qdrant-client, httpx, pyarrow and tqdm.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path

import httpx
import pyarrow.parquet as pq
from qdrant_client import QdrantClient, models
from tqdm import tqdm

COLLECTION = "images"
PAYLOAD = ["path", "width", "height"]


def index_vectors(parquet: Path, store: Path) -> int:
    """Copy the vectors of a file that `siglip-embed embed` wrote; return how many.

    The collection keeps the space of the vectors. It takes the place of an earlier one.
    """
    with closing(open_store(store)) as client, pq.ParquetFile(parquet) as file:
        schema = file.schema_arrow
        client.delete_collection(COLLECTION)
        client.create_collection(
            COLLECTION,
            models.VectorParams(
                size=schema.field("embedding").type.list_size, distance=models.Distance.COSINE
            ),
            metadata={"space": schema.metadata[b"space"].decode()},
        )
        for points in read_points(file):
            client.upsert(COLLECTION, points)
        return int(client.count(COLLECTION).count)


def read_points(file: pq.ParquetFile) -> Iterator[models.Batch]:
    """Go through the rows of the images that have a vector; the ids are numbers from 0 on."""
    ids = count()
    with tqdm(total=file.metadata.num_rows, unit=" images", disable=None) as progress:
        for batch in file.iter_batches(batch_size=256, columns=[*PAYLOAD, "embedding"]):
            there = batch.filter(batch["embedding"].is_valid())
            if len(there):
                yield models.Batch(
                    ids=list(islice(ids, len(there))),
                    vectors=there["embedding"].to_pylist(),
                    payloads=there.select(PAYLOAD).to_pylist(),
                )
            progress.update(len(batch))


def search_images(store: Path, query: list[float], limit: int) -> list[tuple[float, str]]:
    """Return cosine and path of the nearest images, the nearest first."""
    with closing(open_store(store)) as client:
        found = client.query_points(COLLECTION, query, limit=limit, with_payload=["path"])
    return [(point.score, point.payload["path"]) for point in found.points]


def read_space(store: Path) -> str:
    """Return the space of the vectors in a store."""
    with closing(open_store(store)) as client:
        return str(client.get_collection(COLLECTION).config.metadata["space"])


def open_store(store: Path) -> QdrantClient:
    """Open a folder; for a server, this is the line to change: `QdrantClient(url=...)`."""
    return QdrantClient(path=str(store))


def embed_query(url: str, image: Path | None, text: str | None, space: str) -> list[float]:
    """Return the vector of an image or a text from the service, which must be of this space."""
    if text is not None:
        body = {"texts": [text], "expect_space": space}
        answer = httpx.post(f"{url}/embed/text", json=body, timeout=120)
    elif image is not None:
        data, options = image.read_bytes(), {"expect_space": space}
        answer = httpx.post(f"{url}/embed", content=data, params=options, timeout=120)
    if answer.is_error:
        sys.exit(answer.text)
    vector: list[float] = answer.json()["data"][0]["embedding"]
    return vector


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    index = commands.add_parser("index", help="copy the vectors of a Parquet file into a store")
    index.add_argument("parquet", type=Path)
    index.add_argument("store", type=Path, help="a folder")
    search = commands.add_parser("search", help="print cosine and path of the nearest images")
    search.add_argument("store", type=Path)
    query = search.add_mutually_exclusive_group(required=True)
    query.add_argument("--image", type=Path)
    query.add_argument("--text")
    search.add_argument("-k", "--count", type=int, default=10)
    search.add_argument("--url", default="http://localhost:8000", help="the service")
    return parser.parse_args()


def main() -> None:
    """Index or search."""
    given = parse_arguments()
    if given.command == "index":
        print(f"{index_vectors(given.parquet, given.store)} images in {given.store}")
        return
    query = embed_query(given.url, given.image, given.text, read_space(given.store))
    for cosine, path in search_images(given.store, query, given.count):
        print(f"{cosine:7.4f}  {path}")


if __name__ == "__main__":
    main()
