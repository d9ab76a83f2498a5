"""Learn to tell folders of images apart from their pooled vectors: a linear probe.

Run as `python examples/recipes/linear_probe.py vectors.parquet`: an image's label is the name of
its folder. `--predict new.parquet` then labels other images. Or copy it: it needs scikit-learn,
pyarrow and tqdm.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.str_]
FOLDS = 5


def read_vectors(parquet: Path) -> tuple[list[str], Vectors]:
    """Return paths and vectors (images, dim) of a file that `siglip-embed embed` wrote."""
    table = pq.read_table(parquet, columns=["path", "embedding"])
    table = table.filter(table["embedding"].is_valid())
    dim = table.schema.field("embedding").type.list_size
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    return table["path"].to_pylist(), vectors


def train_probe(vectors: Vectors, labels: Labels) -> Pipeline:
    """Fit logistic regression; numbers of a unit vector are small, so they are scaled first."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return probe.fit(vectors, labels)


def predict_held_out(vectors: Vectors, labels: Labels, folds: int) -> Labels:
    """Predict each label by a probe that has not seen the image."""
    predicted = np.empty_like(labels)
    splits = StratifiedKFold(folds, shuffle=True, random_state=0).split(vectors, labels)
    for train, test in tqdm(splits, total=folds, unit=" folds", disable=None):
        predicted[test] = train_probe(vectors[train], labels[train]).predict(vectors[test])
    return predicted


def main() -> None:
    """Print how well the probe does, and what it says of other images."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parquet", type=Path, help="vectors of images in a folder for each label")
    parser.add_argument("--predict", type=Path, metavar="PARQUET", help="vectors of other images")
    given = parser.parse_args()
    paths, vectors = read_vectors(given.parquet)
    labels = np.array([Path(path).parent.name for path in paths])
    images = Counter(labels.tolist())
    if len(images) < 2 or min(images.values()) < 2:
        sys.exit("a probe needs two folders or more, of two images or more")
    held_out = predict_held_out(vectors, labels, min(FOLDS, *images.values()))
    print(classification_report(labels, held_out, zero_division=0))
    if given.predict:
        probe = train_probe(vectors, labels)
        others, unlabelled = read_vectors(given.predict)
        for path, chances in zip(others, probe.predict_proba(unlabelled), strict=True):
            print(f"{chances.max():6.3f}  {probe.classes_[chances.argmax()]}  {path}")


if __name__ == "__main__":
    main()
