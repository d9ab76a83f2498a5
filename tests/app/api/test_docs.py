"""The pages that describe the service: who may see them, and that the description is right."""

import base64
from typing import Any, Literal

import jsonschema_rs
import pytest

from app.keys import ApiKeys
from app.main import create_app
from app.settings import Settings
from tests.app.answers import check_error
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

KEYS = ApiKeys.of(b"hush")
KEY = {"Authorization": "Bearer hush"}
PROBES = {"/healthz", "/readyz", "/livez"}
GREY = base64.b64encode(plain_png((9, 9, 9))).decode()
PAGES = ["/docs", "/redoc", "/openapi.json", "/static-offline-docs/swagger-ui.css"]


def described(settings: Settings) -> dict[str, Any]:
    description: dict[str, Any] = create_app(settings, FakeEmbedder()).openapi()
    return description


def operations(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the one operation of each path."""
    return {
        path: operation
        for path, methods in description["paths"].items()
        for operation in methods.values()
    }


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_be_asked_for_its_head(server: ServiceServer, path: str) -> None:
    got, head = (server.client.request(method, path) for method in ("GET", "HEAD"))

    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_docs_may_ask_for_a_key() -> None:
    with run_service(Settings(api_keys=KEYS, docs="key"), FakeEmbedder()) as service:
        for path in PAGES:
            check_error(service.client.get(path), 401, "invalid_api_key")
            assert service.client.get(path, headers=KEY).status_code == 200
        assert service.client.get("/livez").status_code == 200


@pytest.mark.parametrize("keys", [ApiKeys(), KEYS])
def test_docs_may_be_absent(keys: ApiKeys) -> None:
    with run_service(Settings(api_keys=keys, docs="off"), FakeEmbedder()) as service:
        for path in PAGES:
            check_error(service.client.get(path, headers=KEY), 404, "not_found")
        image = {"images": ("a.png", plain_png((1, 2, 3)))}
        assert service.client.post("/embed", files=image, headers=KEY).status_code == 200


@pytest.mark.parametrize("docs", ["on", "key"])
def test_with_keys_all_but_the_probes_are_described_to_ask_for_one(
    docs: Literal["on", "key"],
) -> None:
    description = described(Settings(api_keys_file=KEYS, docs=docs))
    ((name, scheme),) = description["components"]["securitySchemes"].items()

    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, operation in operations(description).items():
        assert operation.get("security") == (None if path in PROBES else [{name: []}]), path
        assert ("401" in operation["responses"]) == (path not in PROBES), path


def test_without_keys_none_is_described() -> None:
    description = described(Settings())

    assert "securitySchemes" not in description["components"]
    assert not any("security" in operation for operation in operations(description).values())


def test_every_error_is_described_in_the_one_shape() -> None:
    """Save a probe's 503, which is its answer."""
    shape = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    description = described(Settings())

    for path, operation in operations(description).items():
        errors = {status: r for status, r in operation["responses"].items() if status >= "4"}
        assert {"400", "408", "413", "415", "429", "431", "500", "503"} <= errors.keys(), path
        for status, response in errors.items():
            if not (path in PROBES and status == "503"):
                assert response["content"] == shape, (path, status)
    assert "404" in operations(description)["/v1/models/{model_id}"]["responses"]
    assert "HTTPValidationError" not in description["components"]["schemas"]


def test_no_option_has_a_default_that_would_be_sent_unasked() -> None:
    embed = described(Settings())["paths"]["/embed"]["post"]
    content = embed["requestBody"]["content"]
    of_query = {parameter["name"]: parameter["schema"] for parameter in embed["parameters"]}
    of_form, of_json = (
        content[media_type]["schema"]["properties"]
        for media_type in ("multipart/form-data", "application/json")
    )

    for options in (of_query, of_form, of_json):
        assert not any("default" in schema for schema in options.values())
        assert options["output"]["description"].endswith("If not given: pooled.")
        assert options["normalize"]["description"].endswith("If not given: true.")


def test_the_example_of_a_body_can_be_sent_as_it_is(server: ServiceServer) -> None:
    content = server.client.get("/openapi.json").json()["paths"]["/embed"]["post"]["requestBody"]
    example = content["content"]["application/json"]["example"]

    answer = server.client.post("/embed", json=example)
    assert [item["id"] for item in answer.json()["data"]] == [None, "sku-1"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"images": [GREY]}, 200),
        ({"image": GREY}, 200),
        ({"image": {"data": GREY, "id": "a"}}, 200),
        ({"image": GREY, "images": [GREY]}, 400),
        ({"output": "pooled"}, 400),
        ({"image": 7}, 400),
        ({"image": None}, 400),
        ({"image": {"id": "a"}}, 400),
    ],
)
def test_what_is_described_as_a_body_is_what_is_taken(
    server: ServiceServer, body: dict[str, Any], status: int
) -> None:
    content = described(Settings())["paths"]["/embed"]["post"]["requestBody"]["content"]
    schema = jsonschema_rs.validator_for(content["application/json"]["schema"])

    assert schema.is_valid(body) == (status == 200)
    assert server.client.post("/embed", json=body).status_code == status
