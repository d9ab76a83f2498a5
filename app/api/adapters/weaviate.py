"""Weaviate's multi2vec-clip: what its module asks of the container that makes the vectors.

POST /vectorize, GET /meta and two probes. The client is Go's and sends no key and no Content-Type.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from app.api.adapters.adapter import Adapter
from app.api.answer_schemas import error_responses
from app.api.context import ApiContext, get_context
from app.api.description import ANSWER_HEADERS, HEADER_PARAMETERS
from app.api.door import enter, read_json_head
from app.api.health import livez, readyz
from app.api.json_body import parse_json, refuse_unknown_names
from app.api.media_type import is_json, media_type_of
from app.api.options import check_options, read_query, validate
from app.api.render import Answer, cast_pooled, estimate_answer_bytes
from app.api.schemas import EXAMPLE_IMAGES, EmbedOptions
from app.api.submit import submit
from app.api.text_inputs import check_texts
from app.engine.mixed import EmbeddedMixed, embed_mixed
from app.engine.service import EmbeddedImage
from app.errors import (
    TooManyImagesError,
    TooManyTextsError,
    UnsupportedMediaTypeError,
)
from app.intake.base64_text import decode_base64

router = APIRouter()

_OPTIONS = EmbedOptions()  # unit vectors, as distances by cosine want them
_EXAMPLE = {"texts": ["a red bicycle"], "images": [EXAMPLE_IMAGES[1]["data"]]}


Base64 = Annotated[str, WithJsonSchema({"type": "string", "format": "byte"})]


class VectorizeBody(BaseModel):
    """Body of POST /vectorize; Go writes null for a list that it does not have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    texts: list[str] | None = None
    images: list[Base64] | None = None


class VectorizeAnswer(BaseModel):
    """Answer of POST /vectorize, in the order of the request; of length 1 each."""

    textVectors: list[list[float]]  # noqa: N815 # the contract's names
    imageVectors: list[list[float]]  # noqa: N815


class WeaviateError(BaseModel):
    """Every error of these routes has this shape."""

    error: str = Field(examples=["image 0: the JPEG ends early"])


def _own_error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    described = error_responses(*statuses)
    return {status: response | {"model": WeaviateError} for status, response in described.items()}


_PROBE_RESPONSES = _own_error_responses() | {503: {"description": "Not so."}}
for _path, _probe in (("ready", readyz), ("live", livez)):
    router.add_api_route(
        f"/.well-known/{_path}",
        _probe,
        summary=f"Weaviate: {_path}?",
        responses=_PROBE_RESPONSES,
        operation_id=f"weaviate_{_path}",
    )


@router.get("/meta", summary="Weaviate: which model?", responses=_own_error_responses())
async def meta(request: Request) -> dict[str, Any]:
    """Tell which model makes the vectors, and their spaces."""
    service = get_context(request).engine.require_service()
    info = service.info
    return {
        "model": info.model,
        "revision": info.revision,
        "space": info.space,
        "text_space": service.texts.info.text_space if service.texts else None,
        "dim": info.dim,
    }


@router.post(
    "/vectorize",
    summary="Weaviate: turn texts and images into vectors",
    responses={
        200: {"model": VectorizeAnswer, "headers": dict(ANSWER_HEADERS)},
        **_own_error_responses(406, 422, 504),
    },
    openapi_extra={
        "parameters": HEADER_PARAMETERS,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": VectorizeBody.model_json_schema(),
                    "example": _EXAMPLE,
                }
            },
        },
    },
)
async def vectorize(request: Request) -> Response:
    """Embed the texts and images of one object of Weaviate's; either list may be absent."""
    service, form, timeout_s = enter(request, read_json_head)
    context = get_context(request)
    texts, images = await _read_lists(request, context)
    if texts:
        service.require_texts()
    if images:
        check_options(_OPTIONS, form, service.info)
    decode = partial(decode_base64, max_bytes=context.input_limits.max_image_bytes)
    return await submit(
        request,
        lambda work: embed_mixed(
            service,
            texts,
            [partial(decode, image) for image in images],
            timeout_s=timeout_s,
            work=work,
        ),
        _render,
        space=service.info.space,
        max_answer_bytes=estimate_answer_bytes(
            _OPTIONS, form, service.info, len(texts) + len(images)
        ),
    )


async def _read_lists(request: Request, context: ApiContext) -> tuple[list[str], list[str]]:
    """Read texts and images; raises an `InvalidRequestError`."""
    media_type = media_type_of(request)
    if media_type and not is_json(media_type):
        raise UnsupportedMediaTypeError("send JSON, as application/json")
    refuse_unknown_names((name for name, _ in read_query(request.scope["query_string"])), [])
    max_images, text_limits = context.input_limits.max_images, context.text_limits
    max_items = max_images + text_limits.max_texts
    body = await request.body()
    example = '{"texts": ["a red bicycle"], "images": ["<base64>"]}'
    content = parse_json(body, max_items, example, holds_prose=True)
    refuse_unknown_names(content, [*VectorizeBody.model_fields])
    if _count(content, "texts") > text_limits.max_texts:
        raise TooManyTextsError(f"more than {text_limits.max_texts} texts (SIGLIP_MAX_TEXTS)")
    if _count(content, "images") > max_images:
        raise TooManyImagesError(f"more than {max_images} images (SIGLIP_MAX_IMAGES)")
    given = validate(VectorizeBody, content)
    texts = given.texts or []
    check_texts(texts, text_limits)
    return texts, given.images or []


def _count(content: Mapping[str, object], name: str) -> int:
    items = content.get(name)
    return len(items) if isinstance(items, list) else 0


def _render(embedded: EmbeddedMixed) -> Answer:
    images = [image.vectors for image in embedded.images if isinstance(image, EmbeddedImage)]
    content = {
        "textVectors": _unit_vectors([text.vector for text in embedded.texts]),
        "imageVectors": _unit_vectors([image.pooled for image in images]),
    }
    return Answer(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), "application/json")


def _unit_vectors(vectors: Sequence[Any]) -> list[Any]:
    return [cast_pooled(vector, _OPTIONS) for vector in vectors]


def _word_error(error: Mapping[str, Any]) -> dict[str, Any]:
    return {"error": error["message"]}


ADAPTER = Adapter(router, _word_error, {"/vectorize": read_json_head})
