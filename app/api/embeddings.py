"""POST /v1/embeddings: texts and images in, their vectors out, for clients that exist."""

from collections.abc import Mapping
from contextlib import suppress

import orjson
from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from app.api.answer_schemas import error_responses
from app.api.context import ApiContext, get_context
from app.api.description import ANSWER_HEADERS
from app.api.door import Admitted, enter, read_json_head
from app.api.embeddings_description import describe_embeddings_request
from app.api.embeddings_inputs import EmbeddingsInput, read_embeddings_input
from app.api.embeddings_schemas import EmbeddingList
from app.api.options import check_options
from app.api.render import Answer, cast_pooled, encode_vectors, estimate_answer_bytes
from app.api.submit import submit
from app.engine.mixed import EmbeddedMixed, embed_mixed
from app.engine.protocol import Float32Array, MaybeNone, ModelInfo
from app.engine.service import EmbeddedImage, EmbeddingService
from app.errors import ItemsFailedError, QueueFullError, TextTooLargeError
from app.observe.work import Work

router = APIRouter()


@router.post(
    "/v1/embeddings",
    summary="Turn texts and images into vectors, as OpenAI's clients ask for them",
    responses={
        200: {"model": EmbeddingList, "headers": dict(ANSWER_HEADERS)},
        **error_responses(401, 403, 404, 406, 422, 504),
    },
    openapi_extra=describe_embeddings_request(),
)
@router.post("/embeddings", include_in_schema=False)
async def create_embeddings(request: Request) -> Response:
    """Embed texts and images into one space; POST /embeddings is the same.

    One input that fails fails the request. The answer keeps the request's order.
    """
    service, form, timeout_s = enter(request, _admit)
    given = await read_embeddings_input(request, get_context(request), service.info)
    if given.texts:
        service.require_texts()
    if given.sources:
        check_options(given.options, form, service.info)

    async def compute(work: Work) -> EmbeddedMixed:
        try:
            return await embed_mixed(
                service, given.texts, given.sources, timeout_s=timeout_s, work=work
            )
        except ItemsFailedError as error:
            raise _in_their_places(error, given) from None

    return await submit(
        request,
        compute,
        lambda embedded: _render(embedded, given, service),
        space=service.info.space,
        max_answer_bytes=estimate_answer_bytes(
            given.options, form, service.info, len(given.texts) + len(given.sources)
        ),
        kind="image" if given.sources else "text",
    )


def _admit(headers: Headers, context: ApiContext) -> Admitted:
    """Admit a request where there is room for an image or a text: which it holds is not known."""
    admitted = read_json_head(headers, context)
    _require_some_room(admitted.service, admitted.timeout_s)
    return admitted


DOORS = {"/v1/embeddings": _admit, "/embeddings": _admit}


def _require_some_room(service: EmbeddingService, timeout_s: float) -> None:
    """Raise `QueueFullError` where there is room for images as little as for texts."""
    if service.texts is not None:
        with suppress(QueueFullError):
            service.texts.admission.require_room(timeout_s)
            return
    service.admission.require_room(timeout_s)


def _in_their_places(error: ItemsFailedError, given: EmbeddingsInput) -> ItemsFailedError:
    """Name what failed by its place among all inputs, of which texts and images are parts."""
    places = given.text_places if error.item == "text" else given.image_places
    failed = {places[index]: own for index, own in error.details}
    return ItemsFailedError(failed, "input", given.field)


def _render(embedded: EmbeddedMixed, given: EmbeddingsInput, service: EmbeddingService) -> Answer:
    if not given.truncates:
        _refuse_truncated(embedded, given, service)
    images = [image.vectors for image in embedded.images if isinstance(image, EmbeddedImage)]
    vectors: dict[int, Float32Array | MaybeNone] = {
        **dict(zip(given.text_places, (text.vector for text in embedded.texts), strict=True)),
        **dict(zip(given.image_places, (image.pooled for image in images), strict=True)),
    }
    return _render_list(vectors, given, service.info, sum(text.tokens for text in embedded.texts))


def _refuse_truncated(
    embedded: EmbeddedMixed, given: EmbeddingsInput, service: EmbeddingService
) -> None:
    for index, text in zip(given.text_places, embedded.texts, strict=True):
        if text.truncated:
            raise TextTooLargeError(
                f"input {index} has {text.tokens} tokens, of which the model sees "
                f"{service.require_texts().info.max_tokens}; truncate: true takes these",
                param=f"{given.field}[{index}]",
            )


def _render_list(
    vectors: Mapping[int, Float32Array | MaybeNone],
    given: EmbeddingsInput,
    info: ModelInfo,
    tokens: int,
) -> Answer:
    options = given.options
    items = [
        {
            "object": "embedding",
            "index": index,
            "embedding": encode_vectors(cast_pooled(vectors[index], options), options),
        }
        for index in range(len(vectors))
    ]
    content = {
        "object": "list",
        "data": items,
        "model": info.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Answer(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), "application/json")
