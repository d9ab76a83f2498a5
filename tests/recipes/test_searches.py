"""The three searches: as numpy ranks, by image and by text, with the vectors of the service."""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from examples.recipes import duckdb_search, lancedb_search, qdrant_search
from tests.app.service_server import ServiceServer
from tests.recipes.conftest import Album, Embedded

pytestmark = pytest.mark.recipes

INDEXED: list[ModuleType] = [lancedb_search, qdrant_search]
MODULES: list[ModuleType] = [*INDEXED, duckdb_search]
Search = Callable[[list[float], int], list[tuple[float, str]]]


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def recipe(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture
def store(recipe: ModuleType, album: Album, embedded: Embedded, tmp_path: Path) -> Path:
    """What the recipe searches: the Parquet file, or what the recipe made of it."""
    parquet = album.folder / "vectors.parquet"
    if recipe not in INDEXED:
        return parquet
    store = tmp_path / "store"
    assert recipe.index_vectors(parquet, store) == len(embedded.paths)
    return store


def assert_ranked(found: list[tuple[float, str]], expected: list[tuple[float, str]]) -> None:
    assert [cosine for cosine, _ in found] == pytest.approx(
        [cosine for cosine, _ in expected], abs=1e-5
    )
    assert {path for _, path in found} == {path for _, path in expected}
    cosines = {path: cosine for cosine, path in expected}
    assert [cosines[path] for _, path in found] == pytest.approx(
        [cosine for cosine, _ in expected], abs=1e-5
    )


def test_an_image_finds_itself_and_then_what_numpy_finds(
    recipe: ModuleType, store: Path, album: Album, embedded: Embedded, service: ServiceServer
) -> None:
    space = recipe.read_space(store)
    image = album.folder / "photographs/coffee/0.jpg"

    query = recipe.embed_query(service.url, image, None, space)
    found = recipe.search_images(store, query, len(embedded.paths))

    assert found[0] == (pytest.approx(1, abs=1e-5), "photographs/coffee/0.jpg")
    assert_ranked(found, embedded.rank(query))


def test_a_text_finds_what_numpy_finds(
    recipe: ModuleType, store: Path, embedded: Embedded, service: ServiceServer
) -> None:
    answer = service.client.post("/embed/text", json={"texts": ["a red bicycle"]})

    query = recipe.embed_query(service.url, None, "a red bicycle", recipe.read_space(store))
    found = recipe.search_images(store, query, len(embedded.paths))

    assert query == answer.json()["data"][0]["embedding"]
    assert_ranked(found, embedded.rank(query))


def test_only_the_nearest_are_returned(recipe: ModuleType, store: Path, embedded: Embedded) -> None:
    query = embedded.vectors[3].tolist()

    assert_ranked(recipe.search_images(store, query, 4), embedded.rank(query)[:4])


@pytest.mark.parametrize("text", [None, "a red bicycle"])
def test_a_service_of_another_space_is_refused(
    recipe: ModuleType, album: Album, service: ServiceServer, text: str | None
) -> None:
    image = album.folder / "photographs/coffee/0.jpg"

    with pytest.raises(SystemExit, match="space_mismatch"):
        recipe.embed_query(service.url, image, text, "another:0123456789ab")


@pytest.mark.parametrize("recipe", INDEXED, indirect=True)
def test_an_index_takes_the_place_of_an_earlier_one(
    recipe: ModuleType, store: Path, album: Album, embedded: Embedded
) -> None:
    again = recipe.index_vectors(album.folder / "vectors.parquet", store)

    assert again == len(embedded.paths)


def test_sql_narrows_what_is_searched(album: Album, embedded: Embedded) -> None:
    query, parquet = embedded.vectors[0].tolist(), album.folder / "vectors.parquet"

    found = duckdb_search.search_images(parquet, query, 100, "path LIKE '%/cat/%'")

    expected = [hit for hit in embedded.rank(query) if "/cat/" in hit[1]]
    assert len(expected) == 7
    assert_ranked(found, expected)


def test_each_recipe_can_be_kept_alone_and_asks_the_service_alike() -> None:
    (source,) = {inspect.getsource(recipe.embed_query) for recipe in MODULES}

    assert "expect_space" in source
