"""POST /embed: images in, vectors out."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.accept import AnswerForm
from app.api.answer_schemas import EmbedAnswer, error_responses
from app.api.context import get_context
from app.api.description import ANSWER_BESIDE_JSON, describe_request
from app.api.door import admit_images, enter
from app.api.inputs import EMBED_FORM, read_input
from app.api.options import check_options
from app.api.render import (
    Answer,
    cast_pooled,
    cast_vectors,
    encode_vectors,
    estimate_answer_bytes,
    render_array,
    render_json,
)
from app.api.schemas import EmbedOptions
from app.api.submit import submit
from app.engine.protocol import ModelInfo
from app.engine.service import EmbeddedImage
from app.errors import ServiceError, item_message

router = APIRouter()
DOORS = {"/embed": admit_images}


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
    service, form, timeout_s = enter(request, admit_images)
    context = get_context(request)
    embed_input = await read_input(request, EMBED_FORM, context.input_limits, context.fetcher)
    sources, options, info = embed_input.sources, embed_input.options, service.info
    check_options(options, form, info)
    return await submit(
        request,
        lambda work: service.embed(
            sources,
            patches=options.output != "pooled",
            partial=options.on_error == "partial" and form == "json",
            timeout_s=timeout_s,
            work=work,
        ),
        lambda outcomes: render_images(outcomes, embed_input.ids, options, form, info),
        space=info.space,
        max_answer_bytes=estimate_answer_bytes(options, form, info, len(sources)),
    )


def render_images(
    outcomes: Sequence[EmbeddedImage | ServiceError],
    ids: Sequence[str | None],
    options: EmbedOptions,
    form: AnswerForm,
    info: ModelInfo,
) -> Answer:
    """Write the answer of images; only JSON has a place for those that failed."""
    if form != "json":
        embedded = [image.vectors for image in outcomes if isinstance(image, EmbeddedImage)]
        if options.output == "pooled":
            return render_array(
                [cast_pooled(one.pooled, options) for one in embedded], options, form
            )
        return render_array([cast_vectors(one.patches, options) for one in embedded], options, form)
    items = [
        {"index": index, "id": image_id, **_render_outcome(index, outcome, options, info)}
        for index, (image_id, outcome) in enumerate(zip(ids, outcomes, strict=True))
    ]
    usage = {"images": len(items), "failed": sum("error" in item for item in items)}
    return render_json(items, usage, options, info)


def _render_outcome(
    index: int, outcome: EmbeddedImage | ServiceError, options: EmbedOptions, info: ModelInfo
) -> dict[str, Any]:
    if isinstance(outcome, ServiceError):
        return {"error": {"code": outcome.code, "message": item_message(index, outcome)}}
    (pooled, patches), seen = outcome
    item: dict[str, Any] = {}
    if options.output != "patches":
        item["embedding"] = encode_vectors(cast_pooled(pooled, options), options)
    item["image"] = {"width": seen.width, "height": seen.height, "format": seen.format}
    if options.output != "pooled":
        vectors = cast_vectors(patches, options)
        item["patches"] = {
            "grid": [side // info.patch_size for side in seen.input_size],
            "shape": vectors.shape,
            "patch_size": info.patch_size,
            "input_size": seen.input_size,
            "embedding": encode_vectors(vectors, options),
        }
    item["warnings"] = seen.warnings
    return item
