"""Vectors to response bytes: JSON, base64 in JSON, npy, raw little-endian bytes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pybase64

from app.api.accept import AnswerForm
from app.api.schemas import EmbedOptions, VectorOptions
from app.engine.forward import unit_vector
from app.engine.protocol import Float32Array, MaybeNone, ModelInfo
from app.errors import InternalError, InvalidParameterError, NotAcceptableError

# Most characters of one float32 in JSON, with its comma; and of what stands beside the vectors.
_JSON_FLOAT_BYTES = 15
JSON_ITEM_BYTES = 2**11

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]
"""Little-endian values in C order, of the type that was asked for."""


@dataclass(frozen=True)
class Answer:
    """Response bytes with their content type and headers of their own."""

    body: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


def estimate_answer_bytes(
    options: VectorOptions, form: AnswerForm, info: ModelInfo, items: int
) -> int:
    """Bound the size of an answer from above, so that too large a one costs no work."""
    patches = info.max_patches
    output = options.output if isinstance(options, EmbedOptions) else "pooled"
    vectors = {"pooled": 1, "patches": patches, "both": 1 + patches}[output]
    float_bytes = 2 if options.dtype == "float16" else 4
    if form != "json":
        return items * vectors * info.dim * float_bytes
    per_float = 4 / 3 * float_bytes if options.encoding == "base64" else _JSON_FLOAT_BYTES
    return items * (JSON_ITEM_BYTES + math.ceil(vectors * info.dim * per_float))


def cast_vectors(
    vectors: Float32Array | npt.NDArray[np.float64] | None, options: VectorOptions
) -> Vectors:
    """Bring vectors of any shape to the type asked for.

    Raises `InvalidParameterError` where float16 cannot hold them.
    """
    if vectors is None:
        raise InternalError("vectors that were asked for were not computed")
    if options.dtype == "float32":
        return np.ascontiguousarray(vectors, dtype="<f4")
    if np.abs(vectors).max(initial=0) > np.finfo(np.float16).max:
        raise InvalidParameterError(
            "a value is outside float16's range; use float32", param="dtype"
        )
    return np.ascontiguousarray(vectors, dtype="<f2")


def cast_pooled(pooled: Float32Array | MaybeNone, options: VectorOptions) -> Vectors:
    """Bring one pooled vector to the length and type asked for: (dim,) -> (dim,)."""
    return cast_vectors(unit_vector(pooled) if options.normalize else pooled, options)


def encode_vectors(vectors: Vectors, options: VectorOptions) -> Vectors | str:
    """Return what stands for vectors in the items of `render_json`."""
    if options.encoding == "float":
        return vectors
    return pybase64.b64encode_as_string(vectors.data)


def render_json(
    items: Sequence[Mapping[str, Any]],
    usage: Mapping[str, int],
    options: VectorOptions,
    info: ModelInfo,
    text_space: str | None = None,
) -> Answer:
    """Write the JSON answer of vectors: what holds for all of them, and one item for each."""
    content = {
        "model": info.model,
        "revision": info.revision,
        "space": info.space,
        **({} if text_space is None else {"text_space": text_space}),
        "dim": info.dim,
        "normalized": options.normalize,
        "encoding": options.encoding,
        "dtype": options.dtype,
        "data": items,
        "usage": usage,
    }
    return Answer(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), "application/json")


def render_array(rows: Sequence[Vectors], options: VectorOptions, form: AnswerForm) -> Answer:
    """Write one C-order array, (rows, *shape of a row).

    Raises `NotAcceptableError` when the rows do not make one array.
    """
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
