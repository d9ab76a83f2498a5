"""Clients as they are, against POST /v1/embeddings: OpenAI's, LangChain's, and what others send."""

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import tiktoken.registry
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from app.keys import ApiKeys
from app.settings import Settings
from tests.app.api.conftest import KEY
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import FakeTextEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

BARE = base64.b64encode(plain_png((90, 0, 0))).decode()
DATA_URI = f"data:image/png;base64,{BARE}"


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    settings = Settings(api_keys=ApiKeys.of(KEY.encode()))
    with run_service(settings, FakeEmbedder(), texts=FakeTextEmbedder()) as running:
        running.client.headers["Authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture(scope="module")
def expected(service: ServiceServer) -> list[list[float]]:
    """The vectors of the text "ant" and of the red image, as the routes of their own give them."""
    text = service.client.post("/embed/text", json={"texts": ["ant"]})
    image = service.client.post("/embed", json={"images": [DATA_URI]})
    return [answer.json()["data"][0]["embedding"] for answer in (text, image)]


@pytest.fixture
def sdk(service: ServiceServer) -> Iterator[openai.OpenAI]:
    with make_sdk(service) as client:
        yield client


def make_sdk(service: ServiceServer, **options: Any) -> openai.OpenAI:
    options = {"api_key": KEY, "max_retries": 0, **options}
    return openai.OpenAI(base_url=f"{service.url}/v1", **options)


def make_langchain(service: ServiceServer, **options: Any) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        model="colours",
        openai_api_base=f"{service.url}/v1",
        openai_api_key=SecretStr(KEY),
        **options,
    )


async def embed_by_langchain(service: ServiceServer) -> list[list[float]]:
    async with openai.DefaultAsyncHttpxClient() as http:
        embeddings = make_langchain(
            service, check_embedding_ctx_length=False, http_async_client=http
        )
        return await embeddings.aembed_documents(["ant"])


def assert_float32_equal(ours: list[list[float]], theirs: list[list[float]]) -> None:
    assert np.array(ours, np.float32).tolist() == np.array(theirs, np.float32).tolist()


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])
def test_openai(sdk: openai.OpenAI, expected: list[list[float]], options: dict[str, Any]) -> None:
    """Without the option it asks for base64."""
    answer = sdk.embeddings.create(model="fake/colours", input=["ant", DATA_URI], **options)

    assert_float32_equal([item.embedding for item in answer.data], expected)
    assert [item.index for item in answer.data] == [0, 1]
    assert (answer.model, answer.usage.total_tokens) == ("fake/colours", 3)


def test_openai_async(service: ServiceServer, expected: list[list[float]]) -> None:
    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=KEY) as client:
            answers = await asyncio.gather(
                client.embeddings.create(model="colours", input="ant"),
                client.embeddings.create(model="colours", input=DATA_URI, dimensions=4, user="u"),
            )
        return [answer.data[0].embedding for answer in answers]

    assert_float32_equal(asyncio.run(ask()), expected)


def test_openai_lists_the_model_and_embeds_by_what_is_listed(
    sdk: openai.OpenAI, expected: list[list[float]]
) -> None:
    (model,) = sdk.models.list()
    assert sdk.models.retrieve(model.id) == sdk.models.retrieve("colours") == model
    answer = sdk.embeddings.create(model=model.id, input="ant")
    assert_float32_equal([answer.data[0].embedding], expected[:1])


def test_openai_raises_errors_of_its_own(service: ServiceServer, sdk: openai.OpenAI) -> None:
    create = sdk.embeddings.create
    with pytest.raises(openai.NotFoundError, match="served here is fake/colours") as not_found:
        create(model="text-embedding-3-small", input="ant")
    assert (not_found.value.code, not_found.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="4 dimensions") as bad:
        create(model="colours", input="ant", dimensions=256)
    assert (bad.value.code, bad.value.type) == ("dimensions_unsupported", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        create(model="colours", input=[[1, 2], [3]])
    with pytest.raises(openai.PermissionDeniedError, match="SIGLIP_URL_INPUT"):
        create(model="colours", input="https://images.example.com/a.png")
    with (
        make_sdk(service, api_key="another") as stranger,
        pytest.raises(openai.AuthenticationError, match="key"),
    ):
        stranger.embeddings.create(model="colours", input="ant")


def test_openai_tries_again_when_there_is_room() -> None:
    """A full queue's 429 says when; the client waits that long and has its vector."""
    images = FakeEmbedder()
    images.gate.clear()
    statuses: list[int] = []

    def note(answer: httpx2.Response) -> None:
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
            images.gate.set()  # makes room

    http = openai.DefaultHttpxClient(event_hooks={"response": [note]})
    settings = Settings(queue_images=1)
    with (
        run_service(settings, images, texts=FakeTextEmbedder()) as service,
        make_sdk(service, max_retries=2, http_client=http) as sdk,
        ThreadPoolExecutor(1) as others,
    ):
        others.submit(service.client.post, "/embed", json={"images": [DATA_URI]})
        images.wait_until_entered()
        answer = sdk.embeddings.create(model="colours", input=DATA_URI)

    assert statuses[0] == 429
    assert statuses[-1] == 200
    assert len(answer.data[0].embedding) == 4


def test_langchain(service: ServiceServer, expected: list[list[float]]) -> None:
    embeddings = make_langchain(service, check_embedding_ctx_length=False)

    assert_float32_equal([embeddings.embed_query("ant")], expected[:1])
    assert_float32_equal(embeddings.embed_documents(["ant", DATA_URI]), expected)
    assert_float32_equal(asyncio.run(embed_by_langchain(service)), expected[:1])
    many = make_langchain(service, check_embedding_ctx_length=False, chunk_size=256)
    assert len(many.embed_documents(["ant"] * 600)) == 600


def test_langchain_is_told_what_to_switch_off(
    service: ServiceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its default is to send token ids."""
    encoding = tiktoken.Encoding(
        "bytes",
        pat_str=r"\S+|\s+",
        mergeable_ranks={bytes([value]): value for value in range(256)},
        special_tokens={},
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", encoding)
    embeddings = make_langchain(service, max_retries=0)

    for texts in (["ant"], ["word " * 1_500] * 200):
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            embeddings.embed_documents(texts)


def test_langchain_is_told_how_many_texts(service: ServiceServer) -> None:
    embeddings = make_langchain(service, check_embedding_ctx_length=False)
    with pytest.raises(openai.APIStatusError, match="chunk_size"):
        embeddings.embed_documents(["ant"] * 1_000)


REPLAYED = {
    "infinity, texts": {"model": "colours", "input": ["ant"], "modality": "text"},
    "infinity, images": {
        "model": "colours",
        "input": [DATA_URI],
        "modality": "image",
        "encoding_format": "float",
    },
    "nvclip": {"input": ["ant", DATA_URI], "model": "colours", "encoding_format": "float"},
    "weaviate multi2vec-nvidia": {
        "input": ["ant", DATA_URI],
        "model": "colours",
        "truncate": "END",
        "input_type": "passage",
    },
    "jina, first generation": {
        "model": "colours",
        "normalized": True,
        "embedding_type": "float",
        "input": [{"text": "ant"}, {"bytes": BARE}],
    },
    "jina, first generation, by data URI": {
        "model": "colours",
        "input": [{"text": "ant"}, {"url": DATA_URI}],
    },
    "jina": {
        "model": "colours",
        "dimensions": 4,
        "task": "retrieval.query",
        "late_chunking": False,
        "truncate": True,
        "embedding_type": "float",
        "normalized": True,
        "input": [{"text": "ant"}, {"image": BARE}],
    },
    "weaviate multi2vec-jinaai": {
        "input": [{"text": "ant"}, {"image": BARE}],
        "model": "colours",
        "embedding_type": "float",
        "normalized": True,
    },
    "vllm, image": {
        "model": "colours",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": DATA_URI}}],
            }
        ],
        "encoding_format": "float",
        "padding": True,
    },
    "vllm, text": {
        "model": "colours",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "ant"}]}],
        "encoding_format": "float",
    },
}
"""Bodies as these clients write them."""


@pytest.mark.parametrize("name", REPLAYED)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_replayed(
    service: ServiceServer, expected: list[list[float]], name: str, path: str
) -> None:
    answer = service.client.post(path, json=REPLAYED[name])

    assert answer.status_code == 200, answer.text
    rows = [item["embedding"] for item in answer.json()["data"]]
    if name.endswith(("text", "texts")):
        assert rows == expected[:1]
    elif name.endswith(("image", "images")):
        assert rows == expected[1:]
    else:
        assert rows == expected


def test_vllms_image_with_an_instruction_is_told_that_an_input_is_one_thing(
    service: ServiceServer,
) -> None:
    content = [
        {"type": "image_url", "image_url": {"url": DATA_URI}},
        {"type": "text", "text": "Represent the given image."},
    ]
    body = {"model": "colours", "messages": [{"role": "user", "content": content}]}
    answer = service.client.post("/v1/embeddings", json=body)

    assert answer.status_code == 400
    assert "one text or one image" in answer.json()["error"]["message"]
