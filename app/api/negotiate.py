"""Vectors to response bytes: JSON, base64 in JSON, npy, raw little-endian bytes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pybase64

from app.api.schemas import EmbedOptions
from app.engine.forward import unit_vector
from app.engine.protocol import Float32Array, ModelInfo
from app.engine.service import EmbeddedImage
from app.errors import (
    InternalError,
    InvalidParameterError,
    NotAcceptableError,
    ServiceError,
    item_message,
)

AnswerForm = Literal["json", "npy", "octet-stream"]

_FORMS: tuple[tuple[str, AnswerForm], ...] = (  # the first wins a tie
    ("application/json", "json"),
    ("application/x-npy", "npy"),
    ("application/octet-stream", "octet-stream"),
)
# Most characters of one float32 in JSON, with its comma; and of what stands beside the vectors.
_JSON_FLOAT_BYTES = 15
_JSON_ITEM_BYTES = 2**11

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float16]


@dataclass(frozen=True)
class Answer:
    """Response bytes with their content type and headers of their own."""

    body: bytes
    media_type: str
    headers: dict[str, str]


def pick_form(accept: str) -> AnswerForm:
    """Choose the answer's form by the Accept header (RFC 9110, section 12.5.1); empty means any.

    Raises `NotAcceptableError`.
    """
    qualities: dict[str, float] = {}
    for entry in (accept or "*/*").split(","):
        media_range, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = _quality(parameters)
        media_range = "*/*" if media_range == "*" else media_range  # as Java's own client writes it
        if quality > 0 or _is_whole(parameters):
            qualities[media_range] = quality
    offered = [(_most_specific(qualities, media_type), form) for media_type, form in _FORMS]
    quality, form = max(offered, key=lambda offer: offer[0])
    if quality <= 0:
        raise NotAcceptableError(
            "answers are application/json, application/x-npy or application/octet-stream"
        )
    return form


def _most_specific(qualities: Mapping[str, float], media_type: str) -> float:
    for media_range in (media_type, "application/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range]
    return 0.0


def estimate_answer_bytes(
    options: EmbedOptions, form: AnswerForm, info: ModelInfo, images: int
) -> int:
    """Bound the size of an answer from above, so that too large a one costs no work."""
    patches = info.max_patches
    vectors = {"pooled": 1, "patches": patches, "both": 1 + patches}[options.output]
    float_bytes = 2 if options.dtype == "float16" else 4
    if form != "json":
        return images * vectors * info.dim * float_bytes
    per_float = 4 / 3 * float_bytes if options.encoding == "base64" else _JSON_FLOAT_BYTES
    return images * (_JSON_ITEM_BYTES + math.ceil(vectors * info.dim * per_float))


def render_json(
    outcomes: Sequence[EmbeddedImage | ServiceError],
    ids: Sequence[str | None],
    options: EmbedOptions,
    info: ModelInfo,
) -> Answer:
    """Write the JSON answer of POST /embed."""
    items = [
        _json_error(index, ids[index], outcome)
        if isinstance(outcome, ServiceError)
        else _json_item(index, ids[index], outcome, options, info)
        for index, outcome in enumerate(outcomes)
    ]
    content = {
        "model": info.model,
        "revision": info.revision,
        "space": info.space,
        "dim": info.dim,
        "normalized": options.normalize,
        "encoding": options.encoding,
        "dtype": options.dtype,
        "data": items,
        "usage": {
            "images": len(items),
            "failed": sum(isinstance(outcome, ServiceError) for outcome in outcomes),
        },
    }
    return Answer(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), "application/json", {})


def render_array(
    images: Sequence[EmbeddedImage], options: EmbedOptions, form: AnswerForm
) -> Answer:
    """Write one C-order array: (images, dim), or (images, patches, dim) for output=patches.

    Raises `NotAcceptableError` when the vectors do not make one array.
    """
    if options.output == "pooled":
        rows = [_pooled(image, options) for image in images]
    else:
        rows = [_patches(image, options) for image in images]
    if len({row.shape for row in rows}) > 1:
        raise NotAcceptableError("patch vectors of unequal number cannot be one array")
    array = np.stack(rows)
    headers = {
        "X-Embedding-Shape": ",".join(map(str, array.shape)),
        "X-Embedding-Dtype": options.dtype,
    }
    if form == "octet-stream":
        return Answer(array.tobytes(), "application/octet-stream", headers)
    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return Answer(file.getvalue(), "application/x-npy", headers)


def _json_item(
    index: int, image_id: str | None, image: EmbeddedImage, options: EmbedOptions, info: ModelInfo
) -> dict[str, Any]:
    item: dict[str, Any] = {"index": index, "id": image_id}
    if options.output != "patches":
        item["embedding"] = _encode(_pooled(image, options), options)
    seen = image.seen
    item["image"] = {"width": seen.width, "height": seen.height, "format": seen.format}
    if options.output != "pooled":
        patches = _patches(image, options)
        item["patches"] = {
            "grid": [side // info.patch_size for side in seen.input_size],
            "shape": patches.shape,
            "patch_size": info.patch_size,
            "input_size": seen.input_size,
            "embedding": _encode(patches, options),
        }
    item["warnings"] = seen.warnings
    return item


def _json_error(index: int, image_id: str | None, error: ServiceError) -> dict[str, Any]:
    message = item_message(index, error)
    return {"index": index, "id": image_id, "error": {"code": error.code, "message": message}}


def _pooled(image: EmbeddedImage, options: EmbedOptions) -> FloatArray:
    pooled = image.vectors.pooled
    if pooled is None:
        raise InternalError("pooled vectors were not computed")
    return _cast(unit_vector(pooled) if options.normalize else pooled, options)


def _patches(image: EmbeddedImage, options: EmbedOptions) -> FloatArray:
    if image.vectors.patches is None:
        raise InternalError("patch vectors were not computed")
    return _cast(image.vectors.patches, options)


def _cast(vectors: Float32Array | npt.NDArray[np.float64], options: EmbedOptions) -> FloatArray:
    if options.dtype == "float32":
        return np.ascontiguousarray(vectors, dtype="<f4")
    if np.abs(vectors).max(initial=0) > np.finfo(np.float16).max:
        raise InvalidParameterError(
            "a value is outside float16's range; use float32", param="dtype"
        )
    return np.ascontiguousarray(vectors, dtype="<f2")


def _encode(vectors: FloatArray, options: EmbedOptions) -> FloatArray | str:
    if options.encoding == "float":
        return vectors
    return pybase64.b64encode_as_string(vectors.data)


def _is_whole(parameters: Sequence[str]) -> bool:
    """Whether a range is not narrowed down: to rule out one kind of JSON is not to rule out ours.

    Only what stands before the q narrows.
    """
    return not parameters or parameters[0].startswith("q=")


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
