"""POST /classify: images and labels in, the labels that fit each image out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from app.api.answer_schemas import error_responses
from app.api.classify_description import describe_classify_request
from app.api.classify_schemas import MAX_PROMPTS, ClassifyAnswer, ClassifyOptions
from app.api.context import ApiContext, get_context
from app.api.description import ANSWER_HEADERS
from app.api.door import Admitted, enter, read_json_head
from app.api.inputs import ImageInput, InputForm, read_input
from app.api.label_prompts import LabelPrompts, make_prompts, refuse_too_many
from app.api.render import JSON_ITEM_BYTES, Answer
from app.api.submit import submit
from app.engine.labels import LabelVectors, label_key
from app.engine.mixed import embed_mixed
from app.engine.protocol import ModelInfo, TextInfo
from app.engine.service import EmbeddedImage, EmbeddingService
from app.engine.zero_shot import Logits, rank_labels
from app.errors import (
    InvalidParameterError,
    ItemsFailedError,
    ServiceError,
    TextDisabledError,
    item_message,
)
from app.observe.work import Work

router = APIRouter()

_FORM = InputForm(
    ClassifyOptions,
    'images and labels: {"images": ["<base64>"], "labels": ["a cat", "a dog"]}',
    lists=frozenset({"labels", "template"}),
    most_values=MAX_PROMPTS,
    check_json=refuse_too_many,
)
# Most characters of a score and a cosine in JSON, with their names.
_JSON_LABEL_BYTES = 100
# Labels of all images that are compared on the event loop, at some 0.4 us each (by hand); more are
# in a thread.
_MOST_RANKED_INLINE = 1_000


@dataclass(frozen=True)
class _Request:
    """What is asked for, and of which model."""

    given: ImageInput[ClassifyOptions]
    prompts: LabelPrompts
    info: ModelInfo
    text_info: TextInfo


@dataclass(frozen=True)
class _Embedded:
    """The labels, and the outcomes of the images in order."""

    labels: LabelVectors
    images: Sequence[EmbeddedImage | ServiceError]


@router.post(
    "/classify",
    summary="Tell which labels fit images",
    responses={
        200: {"model": ClassifyAnswer, "headers": dict(ANSWER_HEADERS)},
        **error_responses(401, 403, 406, 422, 504),
    },
    openapi_extra=describe_classify_request(),
)
async def classify(request: Request) -> Response:
    """Compare the images of one request with labels in words (zero-shot classification).

    Send images as to /embed, and labels beside them: repeated `labels` in the query string or the
    form, or a list in JSON. Right labels often score 0.15 to 0.4 by sigmoid: find a threshold on
    images of your own. Vectors of labels are remembered.
    """
    service, _, timeout_s = enter(request, _admit)
    texts = service.require_texts()
    context = get_context(request)
    given = await read_input(request, _FORM, context.input_limits, context.fetcher)
    prompts = make_prompts(given.options, context.text_limits)
    asked = _Request(given, prompts, service.info, texts.info)
    _check_scoring(asked)
    return await submit(
        request,
        lambda work: _embed(service, asked, timeout_s, work),
        lambda embedded: _render(embedded, asked),
        space=service.info.space,
        max_answer_bytes=_estimate_bytes(asked),
        takes_long=len(given.sources) * len(prompts.labels) > _MOST_RANKED_INLINE,
    )


def _admit(headers: Headers, context: ApiContext) -> Admitted:
    """Admit a request where there is room for an image, and for a text."""
    admitted = read_json_head(headers, context)
    service = admitted.service
    texts = service.require_texts()
    if not service.info.pooled:
        raise TextDisabledError("no texts here: the model has no pooling head to compare them with")
    for admission in (service.admission, texts.admission):
        admission.require_room(admitted.timeout_s)
    return admitted


DOORS = {"/classify": _admit}


def _check_scoring(asked: _Request) -> None:
    if asked.given.options.scoring != "cosine" and Logits.of(asked.text_info) is None:
        raise InvalidParameterError(
            "this checkpoint has no logit_scale and logit_bias, which make scores of cosines; ask "
            "for scoring=cosine",
            param="scoring",
        )


async def _embed(
    service: EmbeddingService, asked: _Request, timeout_s: float, work: Work
) -> _Embedded:
    prompts = asked.prompts
    key = label_key(prompts.texts, prompts.counts)
    known = service.labels.find(key)
    try:
        embedded = await embed_mixed(
            service,
            () if known else prompts.texts,
            asked.given.sources,
            partial=asked.given.options.on_error == "partial",
            timeout_s=timeout_s,
            work=work,
        )
    except ItemsFailedError as error:
        raise prompts.blame_labels(error) if error.item == "text" else error from None
    labels = known or service.labels.keep(key, prompts.counts, embedded.texts)
    return _Embedded(labels, embedded.images)


def _estimate_bytes(asked: _Request) -> int:
    """Bound the size of an answer from above; labels are repeated for each image."""
    sizes = sorted(len(orjson.dumps(label)) for label in asked.prompts.labels)
    shown = sizes[-(asked.given.options.top_k or len(sizes)) :]
    per_image = JSON_ITEM_BYTES + sum(shown) + _JSON_LABEL_BYTES * len(shown)
    return len(asked.given.sources) * per_image


def _render(embedded: _Embedded, asked: _Request) -> Answer:
    labels = embedded.labels
    items = [
        {"index": index, "id": image_id, **_render_outcome(index, outcome, labels, asked)}
        for index, (image_id, outcome) in enumerate(
            zip(asked.given.ids, embedded.images, strict=True)
        )
    ]
    content = {
        "model": asked.info.model,
        "revision": asked.info.revision,
        "space": asked.info.space,
        "text_space": asked.text_info.text_space,
        "scoring": asked.given.options.scoring,
        "data": items,
        "usage": {
            "images": len(items),
            "failed": sum("error" in item for item in items),
            "texts": len(asked.prompts.texts),
            "tokens": labels.tokens,
        },
    }
    return Answer(orjson.dumps(content), "application/json")


def _render_outcome(
    index: int,
    outcome: EmbeddedImage | ServiceError,
    labels: LabelVectors,
    asked: _Request,
) -> dict[str, Any]:
    if isinstance(outcome, ServiceError):
        return {"error": {"code": outcome.code, "message": item_message(index, outcome)}}
    (pooled, _), seen = outcome
    options = asked.given.options
    logits = Logits.of(asked.text_info)
    ranked = rank_labels(pooled, labels.vectors, options.scoring, logits, options.top_k)
    return {
        "image": {"width": seen.width, "height": seen.height, "format": seen.format},
        "labels": [
            {"label": asked.prompts.labels[at], "score": score, "cosine": cosine}
            for at, score, cosine in ranked
            if options.threshold is None or score >= options.threshold
        ],
        "warnings": [*seen.warnings, *(["text_truncated"] if labels.truncated else [])],
    }
