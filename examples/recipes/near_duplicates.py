"""List the near-duplicates of a folder: of each group, which image to keep and how near others are.

Run as `python examples/recipes/near_duplicates.py vectors.parquet --threshold 0.95`. Or copy it: it
needs numpy, pyarrow and tqdm.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from tqdm import tqdm

Vectors = npt.NDArray[np.float32]
BLOCK = 256  # images that are compared with all others at a time


def read_vectors(parquet: Path) -> tuple[list[str], Vectors]:
    """Return paths and vectors (images, dim) of length 1, those of most pixels first."""
    table = pq.read_table(parquet, columns=["path", "width", "height", "embedding"])
    table = table.filter(table["embedding"].is_valid()).combine_chunks()
    dim = table.schema.field("embedding").type.list_size
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    pixels = table["width"].to_numpy().astype(np.int64) * table["height"].to_numpy()
    order = np.argsort(-pixels, kind="stable")
    paths = table["path"].to_pylist()
    vectors = vectors[order] / np.linalg.norm(vectors[order], axis=1, keepdims=True)
    return [paths[row] for row in order], vectors


def find_duplicates(vectors: Vectors, threshold: float) -> dict[int, dict[int, float]]:
    """Map rows to keep to their near-duplicates among later rows, and these to the cosine.

    A row is a duplicate of the first kept row that is so near; nothing is compared with what is
    not kept, so a chain of alike images does not become one group.
    """
    groups: dict[int, dict[int, float]] = {}
    free = np.ones(len(vectors), bool)
    with tqdm(total=len(vectors), unit=" images", disable=None) as progress:
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            for row, cosines in enumerate(block @ vectors[start:].T, start):
                if free[row]:
                    near = start + np.flatnonzero(cosines >= threshold)
                    near = near[(near > row) & free[near]]
                    free[near] = False
                    if len(near):
                        groups[row] = {int(other): float(cosines[other - start]) for other in near}
            progress.update(len(block))
    return groups


def main() -> None:
    """Print a group of near-duplicates after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parquet", type=Path, help="what `siglip-embed embed` wrote")
    parser.add_argument("--threshold", type=float, default=0.95, help="least cosine; default 0.95")
    given = parser.parse_args()
    paths, vectors = read_vectors(given.parquet)
    groups = find_duplicates(vectors, given.threshold)
    for kept, duplicates in groups.items():
        print(f"   keep  {paths[kept]}")
        for row, cosine in duplicates.items():
            print(f"{cosine:7.4f}  {paths[row]}")
    print(f"{sum(map(len, groups.values()))} near-duplicates among {len(paths)} images")


if __name__ == "__main__":
    main()
