"""POST /embed: images in, vectors out."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.context import get_context
from app.api.departure import unless_client_leaves
from app.api.description import ANSWER_BESIDE_JSON, describe_request
from app.api.held_answer import HeldAnswer
from app.api.inputs import EmbedInput, read_input
from app.api.negotiate import (
    Answer,
    AnswerForm,
    estimate_answer_bytes,
    pick_form,
    render_array,
    render_json,
)
from app.api.schemas import EmbedAnswer, EmbedOptions, error_responses
from app.engine.protocol import ModelInfo
from app.engine.same_space import same_space
from app.engine.service import Embedded, EmbeddedImage
from app.errors import (
    InvalidParameterError,
    NotAcceptableError,
    ResponseTooLargeError,
    SpaceMismatchError,
)
from app.observe.metrics import count_stages

router = APIRouter()

# Answers that may be larger are written in a thread: the event loop is everybody's. And they are
# counted until they are read: there is no end to the clients that do not.
_MAX_INLINE_ANSWER_BYTES = 2**20


@router.post(
    "/embed",
    summary="Turn images into vectors",
    responses={
        200: {"model": EmbedAnswer, **ANSWER_BESIDE_JSON},
        **error_responses(401, 403, 406, 412, 422, 504),
    },
    openapi_extra=describe_request(),
)
async def embed(request: Request) -> Response:
    """Embed the images of one request.

    Send one image as the raw body, several as a multipart form (`images`), or base64 in JSON. The
    answer keeps the request's order.
    """
    context = get_context(request)
    service = context.engine.require_service()
    form = pick_form(",".join(request.headers.getlist("accept")))
    timeout_s = _timeout_s(request, context.request_timeout_s)
    service.admission.require_room(timeout_s)  # before the body costs anything
    embed_input = await read_input(request, context.input_limits, context.fetcher)
    options = embed_input.options
    _check_options(options, form, service.info)
    answer_bytes = estimate_answer_bytes(options, form, service.info, len(embed_input.sources))
    if answer_bytes > context.max_response_bytes:
        raise ResponseTooLargeError(
            "too many vectors for one answer (SIGLIP_MAX_RESPONSE_BYTES); send fewer images"
        )
    is_large = answer_bytes > _MAX_INLINE_ANSWER_BYTES
    with ExitStack() as held:
        held.enter_context(context.answers.held(answer_bytes if is_large else 0))
        work = service.embed(
            embed_input.sources,
            patches=options.output != "pooled",
            partial=options.on_error == "partial" and form == "json",
            timeout_s=timeout_s,
        )
        embedded = await unless_client_leaves(request, work)
        start = time.monotonic()
        render = partial(_render, embedded, embed_input, form, service.info)
        answer = await asyncio.to_thread(render) if is_large else render()
        stage_s = embedded.stage_s | {"serialize": time.monotonic() - start}
        count_stages(stage_s)
        headers = answer.headers | _headers(service.info, stage_s)
        return HeldAnswer(answer.body, headers, answer.media_type, held.pop_all())


def _headers(info: ModelInfo, stage_s: Mapping[str, float]) -> dict[str, str]:
    return {
        "X-Embedding-Space": info.space,
        "Server-Timing": ", ".join(f"{name};dur={s * 1000:.1f}" for name, s in stage_s.items()),
    }


def _check_options(options: EmbedOptions, form: AnswerForm, info: ModelInfo) -> None:
    if options.expect_space is not None and not same_space(options.expect_space, info.space):
        raise SpaceMismatchError(f"the space here is {info.space}", param="expect_space")
    if options.output != "patches" and not info.pooled:
        raise InvalidParameterError(
            "this model has no pooling head, so no pooled vectors; ask for output=patches",
            param="output",
        )
    if options.output == "both" and form != "json":
        raise NotAcceptableError("output=both cannot be one array; ask for JSON", param="output")
    if options.dtype == "float16" and form == "json" and options.encoding == "float":
        raise InvalidParameterError(
            "float16 needs encoding=base64 or a binary answer", param="dtype"
        )


def _render(
    embedded: Embedded, embed_input: EmbedInput, form: AnswerForm, info: ModelInfo
) -> Answer:
    options = embed_input.options
    if form == "json":
        return render_json(embedded.outcomes, embed_input.ids, options, info)
    images = [image for image in embedded.outcomes if isinstance(image, EmbeddedImage)]
    return render_array(images, options, form)


def _timeout_s(request: Request, longest_s: float) -> float:
    """Return the caller's patience, never more than the service's own."""
    given = request.headers.get("x-request-timeout-ms")
    if given is None:
        return longest_s
    if not (given.isascii() and given.isdigit() and len(given) <= 9 and int(given) > 0):
        raise InvalidParameterError("not a number of milliseconds", param="X-Request-Timeout-Ms")
    return min(int(given) / 1000, longest_s)
