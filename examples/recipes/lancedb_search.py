"""Search images by image or by text with LanceDB, which keeps its tables in a folder.

Run as `python examples/recipes/lancedb_search.py index vectors.parquet vectors.lance`, then
`... search vectors.lance --text "a red bicycle"`, with the service running. Or copy it: it needs
lancedb, httpx, pyarrow and tqdm.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

TABLE = "images"
COLUMNS = ["path", "width", "height", "embedding"]


def index_vectors(parquet: Path, store: Path) -> int:
    """Copy the vectors of a file that `siglip-embed embed` wrote; return how many.

    The table keeps the file's metadata, in which is the space of the vectors. It takes the place of
    an earlier one.
    """
    with pq.ParquetFile(parquet) as file:
        types = file.schema_arrow
        schema = pa.schema([types.field(name) for name in COLUMNS], types.metadata)
        database = lancedb.connect(store)
        database.drop_table(TABLE, ignore_missing=True)
        table = database.create_table(TABLE, schema=schema)
        table.add(pa.RecordBatchReader.from_batches(schema, read_batches(file)))
    return int(table.count_rows())


def read_batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Go through the rows of the images that have a vector."""
    with tqdm(total=file.metadata.num_rows, unit=" images", disable=None) as progress:
        for batch in file.iter_batches(columns=COLUMNS):
            yield batch.filter(batch["embedding"].is_valid())
            progress.update(len(batch))


def search_images(store: Path, query: list[float], count: int) -> list[tuple[float, str]]:
    """Return cosine and path of the nearest images, the nearest first."""
    found = lancedb.connect(store).open_table(TABLE).search(query).distance_type("cosine")
    rows = found.limit(count).select(["path", "_distance"]).to_list()
    return [(1 - row["_distance"], row["path"]) for row in rows]


def read_space(store: Path) -> str:
    """Return the space of the vectors in a store."""
    metadata: dict[bytes, bytes] = lancedb.connect(store).open_table(TABLE).schema.metadata
    return metadata[b"space"].decode()


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
