"""Show what patch vectors see: images beside their patches, coloured by PCA and by k-means.

Run as `python examples/recipes/segment_patches.py patches.parquet -o segments.png`, on what
`siglip-embed embed photographs --output patches -o patches.parquet` wrote, and in the same folder.
Or copy it: it needs scikit-learn, Pillow, pyarrow and tqdm.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image, ImageColor, ImageOps
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from tqdm import tqdm

Colours = npt.NDArray[np.uint8]
WIDTH = 256  # of each picture, in pixels


class Patches(NamedTuple):
    """The patch vectors of an image, (rows, columns, dim)."""

    path: Path
    vectors: npt.NDArray[np.float32]


def read_patches(parquet: Path) -> Iterator[Patches]:
    """Go through the images that have patch vectors."""
    with pq.ParquetFile(parquet) as file:
        for batch in file.iter_batches(batch_size=8, columns=["path", "grid", "patches"]):
            for path, grid, patches in zip(*batch.columns, strict=True):
                if patches.is_valid:
                    numbers = patches.values.flatten().to_numpy()
                    yield Patches(Path(path.as_py()), numbers.reshape(*grid.as_py(), -1))


def colour_by_pca(vectors: npt.NDArray[np.float32]) -> Colours:
    """Make red, green and blue of the three directions in which patches differ most: (n, 3)."""
    values = PCA(3, random_state=0).fit_transform(vectors)
    low, high = np.percentile(values, [1, 99], axis=0)
    colours: Colours = (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return colours


def colour_by_cluster(vectors: npt.NDArray[np.float32], clusters: int) -> Colours:
    """Give patches of a cluster the same colour: (n, 3)."""
    hues = [f"hsl({360 * cluster // clusters}, 70%, 55%)" for cluster in range(clusters)]
    palette = np.array([ImageColor.getrgb(hue) for hue in hues], np.uint8)
    colours: Colours = palette[KMeans(clusters, n_init=4, random_state=0).fit_predict(vectors)]
    return colours


def draw_row(path: Path, colourings: list[Colours]) -> Image.Image:
    """Draw an upright image and its patches in each colouring (rows, columns, 3), side by side."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    size = (WIDTH, max(1, round(image.height * WIDTH / image.width)))
    row = Image.new("RGB", (WIDTH * (1 + len(colourings)), size[1]))
    row.paste(image.resize(size))
    for place, colours in enumerate(colourings, 1):
        row.paste(
            Image.fromarray(colours).resize(size, Image.Resampling.NEAREST), (place * WIDTH, 0)
        )
    return row


def draw_images(images: list[Patches], clusters: int) -> Image.Image:
    """Draw a row for each image; colours mean the same in all of them."""
    vectors = np.concatenate(
        [image.vectors.reshape(-1, image.vectors.shape[2]) for image in images]
    )
    ends = np.cumsum([image.vectors.shape[0] * image.vectors.shape[1] for image in images])[:-1]
    by_pca = np.split(colour_by_pca(vectors), ends)
    by_cluster = np.split(colour_by_cluster(vectors, clusters), ends)
    rows = []
    for image, *parts in zip(tqdm(images, disable=None), by_pca, by_cluster, strict=True):
        shape = (*image.vectors.shape[:2], 3)
        rows.append(draw_row(image.path, [colours.reshape(shape) for colours in parts]))
    return stack_rows(rows)


def stack_rows(rows: list[Image.Image]) -> Image.Image:
    """Put pictures of equal width below one another."""
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parquet", type=Path, help="patch vectors of images")
    parser.add_argument("-o", "--out", type=Path, default=Path("segments.png"))
    parser.add_argument("--images", type=int, default=16, help="how many to show; default 16")
    parser.add_argument("--clusters", type=int, default=5, help="of k-means; default 5")
    given = parser.parse_args()
    images = list(islice(read_patches(given.parquet), given.images))
    sheet = draw_images(images, given.clusters)
    sheet.save(given.out)
    print(f"{len(images)} images in {given.out}, {sheet.width} x {sheet.height} pixels")


if __name__ == "__main__":
    main()
