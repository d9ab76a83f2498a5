"""Search images by image or by text with DuckDB: SQL on the Parquet file itself, without an index.

Run as `python examples/recipes/duckdb_search.py vectors.parquet --text "a red bicycle"`, with the
service running. `--where` takes an SQL condition on the file's columns, and runs it as it is. Or
copy it: it needs duckdb and httpx.
"""

import argparse
import sys
from pathlib import Path

import duckdb
import httpx

NEAREST = """
    SELECT array_cosine_similarity(embedding::FLOAT[{dim}], ?::FLOAT[{dim}]) AS cosine, path
    FROM read_parquet(?)
    WHERE embedding IS NOT NULL AND ({where})
    ORDER BY cosine DESC, path
    LIMIT ?
"""


def search_images(
    parquet: Path, query: list[float], count: int, where: str = "true"
) -> list[tuple[float, str]]:
    """Return cosine and path of the nearest images that fulfil a condition, the nearest first."""
    with duckdb.connect() as database:
        database.execute("SET enable_progress_bar = true")  # shown after two seconds
        nearest = NEAREST.format(dim=len(query), where=where)
        found: list[tuple[float, str]]
        found = database.execute(nearest, [query, str(parquet), count]).fetchall()
        return found


def read_space(parquet: Path) -> str:
    """Return the space of the vectors in a file that `siglip-embed embed` wrote."""
    value = "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = 'space'"
    with duckdb.connect() as database:
        (space,) = database.execute(value, [str(parquet)]).fetchall()[0]
    return str(space)


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
    parser.add_argument("parquet", type=Path)
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--image", type=Path)
    query.add_argument("--text")
    parser.add_argument("--where", default="true", help='say "width > height"')
    parser.add_argument("-k", "--count", type=int, default=10)
    parser.add_argument("--url", default="http://localhost:8000", help="the service")
    return parser.parse_args()


def main() -> None:
    """Print cosine and path of the nearest images."""
    given = parse_arguments()
    query = embed_query(given.url, given.image, given.text, read_space(given.parquet))
    for cosine, path in search_images(given.parquet, query, given.count, given.where):
        print(f"{cosine:7.4f}  {path}")


if __name__ == "__main__":
    main()
