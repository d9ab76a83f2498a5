"""What every answer of the service must look like, and requests in all forms."""

import base64
import re
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pybase64

FORMS = ("raw", "octet-stream", "multipart", "json", "json-data-uri")

_ERROR_KEYS = {"message", "type", "code", "param", "request_id", "details"}


def check_error(
    answer: httpx.Response, status: int, code: str, param: str | None = None
) -> dict[str, Any]:
    """Assert that an answer is the one error shape with these values, and return the error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert content.keys() == {"error"}
    error: dict[str, Any] = content["error"]
    assert error.keys() == _ERROR_KEYS
    assert error["code"] == code
    assert error["param"] == param
    assert error["type"] == _type_of(status)
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    if status in (429, 503):
        assert re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])
    return error


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def post_images(
    client: httpx.Client,
    form: str,
    images: Sequence[bytes],
    options: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """POST images to /embed in one of `FORMS`; the raw forms carry exactly one."""
    return client.post("/embed", **request_of(form, images, options, headers))


def request_of(
    form: str,
    images: Sequence[bytes],
    options: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the arguments of httpx's `post` for images in one of `FORMS`."""
    options, headers = options or {}, headers or {}
    if form in ("raw", "octet-stream"):
        (image,) = images
        content_type = "image/png" if form == "raw" else "application/octet-stream"
        return {
            "params": options,
            "content": image,
            "headers": {"Content-Type": content_type, **headers},
        }
    if form == "multipart":
        files = [("images", (f"{index}.bin", image)) for index, image in enumerate(images)]
        fields = {key: str(value) for key, value in options.items()}
        return {"data": fields, "files": files, "headers": headers}
    prefix = "data:image/png;base64," if form == "json-data-uri" else ""
    texts = [prefix + base64.b64encode(image).decode() for image in images]
    return {"json": {"images": texts, **options}, "headers": headers}


def embeddings(answer: httpx.Response) -> npt.NDArray[np.float64]:
    """Return the pooled vectors of a JSON answer: (images, dim)."""
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]])


def from_base64(text: str, dtype: str = "<f4") -> npt.NDArray[Any]:
    """Return the little-endian numbers behind base64 text."""
    return np.frombuffer(pybase64.b64decode(text, validate=True), dtype)


def cosines(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the cosine of each pair of vectors along the last axis."""
    left, right = np.asarray(first, np.float64), np.asarray(second, np.float64)
    assert left.shape == right.shape
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    products: npt.NDArray[np.float64] = (left * right).sum(-1) / norms
    return products
