"""The application as a whole: its description of itself."""

import re
from typing import Any

import pytest

from app.errors import ServiceError
from tests.app.service_server import ServiceServer


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_docs_page_needs_no_other_host(server: ServiceServer, path: str) -> None:
    page = server.client.get(path)

    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page.text)
    assert not re.search(r"url\(\s*[\"']?https?:", page.text)
    used = re.findall(r"""(?:src|href)=["'](/[^"']+)""", page.text)
    assert used
    for address in used:
        assert server.client.get(address).status_code == 200, address


def test_the_description_resolves_every_reference(server: ServiceServer) -> None:
    description = server.client.get("/openapi.json").json()

    for reference in _references(description):
        assert _resolve(description, reference) is not None, reference


def test_the_description_names_all_forms_options_and_answers(server: ServiceServer) -> None:
    operation = server.client.get("/openapi.json").json()["paths"]["/embed"]["post"]

    assert operation["requestBody"]["content"].keys() == {
        "image/*",
        "application/octet-stream",
        "multipart/form-data",
        "application/json",
    }
    assert {parameter["name"] for parameter in operation["parameters"]} == {
        "output",
        "normalize",
        "encoding",
        "dtype",
        "on_error",
        "expect_space",
        "X-Request-ID",
        "X-Request-Timeout-Ms",
    }
    assert operation["responses"]["200"]["content"].keys() == {
        "application/json",
        "application/x-npy",
        "application/octet-stream",
    }


def test_the_description_names_every_status_of_an_error(server: ServiceServer) -> None:
    responses = server.client.get("/openapi.json").json()["paths"]["/embed"]["post"]["responses"]

    not_of_this_route = {404, 405}
    statuses = {error.status for error in _all_errors(ServiceError)} - not_of_this_route
    assert {str(status) for status in statuses} <= responses.keys()


def test_the_description_promises_when_to_try_again(server: ServiceServer) -> None:
    responses = server.client.get("/openapi.json").json()["paths"]["/embed"]["post"]["responses"]

    with_hint = {
        status
        for status, response in responses.items()
        if response["headers"].get("Retry-After", {}).get("required")
    }
    assert with_hint == {"429", "503"}
    assert responses["429"]["headers"]["Retry-After"]["schema"] == {"type": "integer", "minimum": 1}


def test_every_error_has_a_code_of_its_own() -> None:
    leaves = [
        error
        for error in _all_errors(ServiceError)
        if not error.__subclasses__() and "code" in vars(error)
    ]
    codes = [error.code for error in leaves]

    assert len(leaves) >= 20
    assert len(set(codes)) == len(codes)


def _all_errors(kind: type[ServiceError]) -> list[type[ServiceError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == "app.errors"]
    return children + [error for child in children for error in _all_errors(child)]


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [reference for item in node for reference in _references(item)]
    if isinstance(node, dict):
        found = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return found + [reference for item in node.values() for reference in _references(item)]
    return []


def _resolve(description: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = description
    for part in reference.removeprefix("#/").split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return node
