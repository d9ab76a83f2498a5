"""The route of the playground: which files, with which headers, for whom."""

from importlib.resources import files
from itertools import pairwise

import pytest

from app.api.playground import PATHS
from app.keys import ApiKeys
from app.settings import Settings
from tests.app.answers import check_error
from tests.app.fake_embedder import FakeEmbedder
from tests.app.service_server import ServiceServer, run_service

FOLDER = files("app") / "playground"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
METHODS = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


def test_every_file_of_the_folder_is_served_and_no_other() -> None:
    assert sorted(PATHS.values()) == sorted(file.name for file in FOLDER.iterdir())


def test_the_page_stays_small() -> None:
    assert sum(len(file.read_text().splitlines()) for file in FOLDER.iterdir()) < 800


@pytest.mark.parametrize(("path", "name"), PATHS.items())
def test_a_file_is_served_as_what_it_is(server: ServiceServer, path: str, name: str) -> None:
    got, head = (server.client.request(method, path) for method in ("GET", "HEAD"))

    assert (got.status_code, got.content) == (200, (FOLDER / name).read_bytes())
    assert got.headers["content-type"] == f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["referrer-policy"] == "no-referrer"
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "content-security-policy"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize("path", PATHS)
def test_the_policy_lets_nothing_in_and_nothing_out(server: ServiceServer, path: str) -> None:
    policy = dict(
        directive.partition(" ")[::2]
        for directive in server.client.get(path).headers["content-security-policy"].split("; ")
    )

    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' blob: data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


@pytest.mark.parametrize("path", PATHS)
def test_who_has_a_file_need_not_fetch_it_again(server: ServiceServer, path: str) -> None:
    got = server.client.get(path)
    etag = got.headers["etag"]
    again = server.client.get(path, headers={"If-None-Match": f'"other", {etag}'})
    changed = server.client.get(path, headers={"If-None-Match": f'{etag[:-2]}x"'})

    assert got.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (changed.status_code, changed.content) == (200, got.content)


def test_files_have_etags_of_their_own(server: ServiceServer) -> None:
    etags = sorted(server.client.get(path).headers["etag"] for path in PATHS)

    assert all(one != other for one, other in pairwise(etags))


@pytest.mark.parametrize("path", PATHS)
def test_the_page_may_be_absent(path: str) -> None:
    keys = ApiKeys.of(b"hush")
    settings = Settings(playground="off", api_keys=keys)
    with run_service(settings, FakeEmbedder()) as service:
        check_error(service.client.get(path), 401, "invalid_api_key")
        headers = {"Authorization": "Bearer hush"}
        check_error(service.client.get(path, headers=headers), 404, "not_found")
        assert service.client.get("/docs").status_code == 200


def test_the_page_is_there_without_docs_and_asks_for_no_key() -> None:
    settings = Settings(docs="off", api_keys=ApiKeys.of(b"hush"))
    with run_service(settings, FakeEmbedder()) as service:
        for path in PATHS:
            assert service.client.get(path).status_code == 200
        check_error(service.client.get("/v1/models"), 401, "invalid_api_key")


@pytest.mark.parametrize("method", METHODS)
def test_the_page_takes_nothing(server: ServiceServer, method: str) -> None:
    check_error(server.client.request(method, "/"), 405, "method_not_allowed")


def test_the_page_is_in_no_description(server: ServiceServer) -> None:
    assert not server.client.get("/openapi.json").json()["paths"].keys() & PATHS.keys()


def test_every_link_of_the_files_is_relative() -> None:
    """Behind a proxy the page may be anywhere."""
    for file in FOLDER.iterdir():
        for start in ('"/', "'/", "`/", "url(/", "http:", "https:"):
            assert start not in file.read_text(), (file.name, start)
