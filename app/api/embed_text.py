"""POST /embed/text: texts in, vectors of the images' space out."""

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from app.api.accept import AnswerForm
from app.api.answer_schemas import EmbedTextAnswer, error_responses
from app.api.context import ApiContext, get_context
from app.api.description import ANSWER_BESIDE_JSON
from app.api.door import Admitted, enter, read_head
from app.api.options import check_options
from app.api.render import (
    Answer,
    cast_pooled,
    encode_vectors,
    estimate_answer_bytes,
    render_array,
    render_json,
)
from app.api.submit import submit
from app.api.text_description import describe_text_request
from app.api.text_inputs import TextInput, read_texts
from app.engine.protocol import ModelInfo
from app.engine.texts import EmbeddedText

router = APIRouter()


@router.post(
    "/embed/text",
    summary="Turn texts into vectors",
    responses={
        200: {"model": EmbedTextAnswer, **ANSWER_BESIDE_JSON},
        **error_responses(401, 406, 412, 504),
    },
    openapi_extra=describe_text_request(),
)
async def embed_text(request: Request) -> Response:
    """Embed texts into the space of the images, to search these by words.

    Send JSON, or one text as text/plain. The answer keeps the request's order. Where the model has
    no text tower, or SIGLIP_TEXT is off, it is 400 text_disabled.
    """
    service, form, timeout_s = enter(request, _admit)
    texts = service.require_texts()
    given = await read_texts(request, get_context(request).text_limits)
    info = service.info
    check_options(given.options, form, info)
    return await submit(
        request,
        lambda work: texts.embed(given.texts, timeout_s=timeout_s, work=work),
        lambda embedded: _render(embedded, given, form, info, texts.info.text_space),
        space=info.space,
        max_answer_bytes=estimate_answer_bytes(given.options, form, info, len(given.texts)),
        kind="text",
    )


def _admit(headers: Headers, context: ApiContext) -> Admitted:
    """Admit a request where there is room for a text."""
    admitted = read_head(headers, context)
    admitted.service.require_texts().admission.require_room(admitted.timeout_s)
    return admitted


DOORS = {"/embed/text": _admit}


def _render(
    texts: Sequence[EmbeddedText],
    given: TextInput,
    form: AnswerForm,
    info: ModelInfo,
    text_space: str,
) -> Answer:
    options = given.options
    rows = [cast_pooled(text.vector, options) for text in texts]
    if form != "json":
        return render_array(rows, options, form)
    items = [
        {
            "index": index,
            "id": text_id,
            "embedding": encode_vectors(row, options),
            "tokens": text.tokens,
            "warnings": _warnings(text),
        }
        for index, (text_id, row, text) in enumerate(zip(given.ids, rows, texts, strict=True))
    ]
    usage = {"texts": len(items), "tokens": sum(text.tokens for text in texts)}
    return render_json(items, usage, options, info, text_space)


def _warnings(text: EmbeddedText) -> Sequence[str]:
    return ("text_truncated",) if text.truncated else ()
