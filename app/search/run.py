"""The whole of one search: the file is opened and held against the model, then ranked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.bulk.row import BulkError, Origin
from app.engine.protocol import Embedder, ModelInfo
from app.engine.same_space import same_space
from app.engine.service import EmbeddingService
from app.search.query import Query, embed_query
from app.search.ranking import rank_rows


@dataclass(frozen=True)
class FoundImage:
    """One result: its rank from 1 on, the cosine to the query, the path as `embed` spelled it."""

    rank: int
    score: float
    path: str


def search_index(
    path: Path,
    query: Query,
    count: int,
    load: Callable[[], Embedder],
    build: Callable[[Embedder], EmbeddingService],
) -> list[FoundImage]:
    """Return the `count` images of a file that are nearest to a query, or all where there are less.

    The model is loaded when the file has turned out to be one that can be searched. Raises
    `BulkError`, what `load` raises, and the `ServiceError` of a query that has no vector.
    """
    try:
        from app.search.index import opened_index  # pyarrow is an extra
    except ImportError:
        raise BulkError("a search needs pyarrow: pip install pyarrow") from None
    with opened_index(path) as index:
        embedder = load()
        _require_same_space(path, index.origin, embedder.info)
        vector = embed_query(query, embedder, build)
        hits = rank_rows(index, vector, count, unit=index.origin.normalized)
        paths = index.read_paths([hit.row for hit in hits])
    ranked = zip(hits, paths, strict=True)
    return [FoundImage(rank, hit.score, path) for rank, (hit, path) in enumerate(ranked, 1)]


def _require_same_space(path: Path, origin: Origin, info: ModelInfo) -> None:
    if not same_space(origin.space, info.space) or origin.dim != info.dim:
        raise BulkError(
            f"{path} has vectors of {origin.model}, space {origin.space};"
            f" those of {info.model} are of {info.space}"
        )
