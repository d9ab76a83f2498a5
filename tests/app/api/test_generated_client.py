"""A client that openapi-python-client makes of /openapi.json, against the service."""

import base64
import importlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.keys import ApiKeys
from app.settings import Settings
from tests.app.api.conftest import KEY
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import FakeTextEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
PACKAGE = "siglip_embeddings_client"


@pytest.fixture(scope="module")
def generated(
    locked: ServiceServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Any]]:
    """Make the client; return how to import a module of it."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "config.yml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    options = {
        "--url": f"{locked.url}/openapi.json",
        "--config": folder / "config.yml",
        "--output-path": folder / PACKAGE,
    }
    for option, value in options.items():
        command += [option, str(value)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            patch.delitem(sys.modules, name)


@pytest.fixture
def client(locked: ServiceServer, generated: Callable[[str], Any]) -> Iterator[Any]:
    with generated("client").AuthenticatedClient(base_url=locked.url, token=KEY) as client:
        yield client


def of_octets(generated: Callable[[str], Any]) -> Any:
    return generated("types").File(io.BytesIO(PNG))


def of_form(generated: Callable[[str], Any]) -> Any:
    file = generated("types").File(io.BytesIO(PNG), "a.png", "image/png")
    return generated("models").EmbedEmbedPostFilesBody(images=[file])


def of_json(generated: Callable[[str], Any]) -> Any:
    text = base64.b64encode(PNG).decode()
    return generated("models").EmbedEmbedPostJsonEmbedBody(images=[text])


def of_openais_list(generated: Callable[[str], Any]) -> Any:
    text = "data:image/png;base64," + base64.b64encode(PNG).decode()
    body = generated("models").CreateEmbeddingsV1EmbeddingsPostBody
    return body(input_=[text], model="random:tiny-patch8-32")


def of_json_alone(generated: Callable[[str], Any]) -> Any:
    text = base64.b64encode(PNG).decode()
    return generated("models").EmbedEmbedPostJsonEmbedBody(image=text)


@pytest.mark.parametrize("make_body", [of_octets, of_form, of_json, of_json_alone])
@pytest.mark.parametrize("options", [{}, {"normalize": False}])
def test_every_form_is_embedded(
    generated: Callable[[str], Any],
    client: Any,
    make_body: Callable[[Any], Any],
    options: dict[str, Any],
) -> None:
    embed = generated("api.default.embed_embed_post")
    answer = embed.sync_detailed(client=client, body=make_body(generated), **options)

    assert answer.status_code == 200, answer.content
    assert answer.parsed.normalized is not bool(options)
    (item,) = answer.parsed.data
    assert len(item.embedding) == answer.parsed.dim


def test_it_embeds_as_openais_clients_do(generated: Callable[[str], Any], client: Any) -> None:
    embed = generated("api.default.embed_embed_post")
    create = generated("api.default.create_embeddings_v1_embeddings_post")
    answer = create.sync_detailed(client=client, body=of_openais_list(generated))
    same = embed.sync(client=client, body=of_json(generated))

    assert answer.status_code == 200, answer.content
    assert answer.parsed.data[0].embedding == same.data[0].embedding


@pytest.mark.parametrize("make_body", [of_form, of_json])
def test_an_option_may_be_in_query_and_body(
    generated: Callable[[str], Any], client: Any, make_body: Callable[[Any], Any]
) -> None:
    embed, models = generated("api.default.embed_embed_post"), generated("models")
    body = make_body(generated)
    body.normalize = False
    same = embed.sync_detailed(client=client, body=body, normalize=False)
    other = embed.sync_detailed(client=client, body=body, normalize=True)

    assert (same.status_code, same.parsed.normalized) == (200, False)
    assert isinstance(other.parsed, models.ErrorAnswer)
    assert (other.status_code, other.parsed.error.param) == (400, "normalize")


@pytest.mark.parametrize("form", ["octets", "form", "json"])
def test_images_are_classified(generated: Callable[[str], Any], form: str) -> None:
    """By a service with texts, which is described as the one without."""
    classify, models = generated("api.default.classify_classify_post"), generated("models")
    labels: Any = ["ant", "bee"]
    query = {"scoring": models.ClassifyClassifyPostScoring.COSINE, "top_k": 1}
    if form == "octets":
        body, query["labels"] = of_octets(generated), labels
    elif form == "form":
        file = generated("types").File(io.BytesIO(PNG), "a.png", "image/png")
        body = models.ClassifyClassifyPostFilesBody(images=[file], labels=labels)
    else:
        text = base64.b64encode(PNG).decode()
        body = models.ClassifyClassifyPostJsonClassifyBody(images=[text], labels=labels)
    settings = Settings(api_keys=ApiKeys.of(KEY.encode()))
    with (
        run_service(settings, FakeEmbedder(), texts=FakeTextEmbedder()) as service,
        generated("client").AuthenticatedClient(base_url=service.url, token=KEY) as client,
    ):
        answer = classify.sync_detailed(client=client, body=body, **query)

    assert answer.status_code == 200, answer.content
    ((label,),) = [item.labels for item in answer.parsed.data]
    assert label.label in labels
    assert label.score == label.cosine


def test_a_model_is_found_or_not_in_shapes_that_the_client_knows(
    generated: Callable[[str], Any], client: Any
) -> None:
    get = generated("api.default.get_model_v1_models_model_id_get")
    found = get.sync("random:tiny-patch8-32", client=client)
    missing = get.sync("another", client=client)

    assert found.id == "random:tiny-patch8-32"
    assert missing.error.code == "model_not_found"


def test_without_a_key_it_reads_the_refusal(
    locked: ServiceServer, generated: Callable[[str], Any]
) -> None:
    embed = generated("api.default.embed_embed_post")
    with generated("client").Client(base_url=locked.url) as anonymous:
        answer = embed.sync_detailed(client=anonymous, body=of_json(generated))

    assert (answer.status_code, answer.parsed.error.code) == (401, "invalid_api_key")
