"""Every error a caller can meet, as data: code, status, public message.

One handler (`app.api.answers`) turns them into answers. Messages never hold input, paths or stacks.

A `ServiceError` is an `InvalidRequestError`: the request itself is wrong; an `ImageError`: one
image is wrong, its neighbours are not; an `ItemsFailedError`: a whole request, failed by some of
its images or texts; or a `ServerError`: the service is at fault or at its limit.
"""

from collections.abc import Mapping


class ServiceError(Exception):
    """An error with a public face; `param` names the request's part at fault."""

    status: int = 500
    code: str = "internal"
    kind: str = "server_error"
    details: tuple[tuple[int, "ServiceError"], ...] = ()
    item: str = "image"
    """What `details` are of."""

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequestError(ServiceError):
    """The request itself is wrong; the same request will fail again. Each kind has its code."""

    status = 400
    kind = "invalid_request_error"


class InvalidJsonError(InvalidRequestError):
    """The body is not the JSON it claims to be."""

    code = "invalid_json"


class UnknownParameterError(InvalidRequestError):
    """A key or option that this route does not know."""

    code = "unknown_parameter"


class InvalidParameterError(InvalidRequestError):
    """A known option with a value it cannot have."""

    code = "invalid_parameter"


class InvalidBase64Error(InvalidRequestError):
    """Image data that is not valid base64."""

    code = "invalid_base64"


class InvalidMultipartError(InvalidRequestError):
    """A form body that cannot be taken apart."""

    code = "invalid_multipart"


class NoImagesError(InvalidRequestError):
    """A request without any image."""

    code = "no_images"


class NoTextsError(InvalidRequestError):
    """There is no text in the request."""

    code = "no_texts"


class TextDisabledError(InvalidRequestError):
    """The service takes no texts."""

    code = "text_disabled"


class TokensUnsupportedError(InvalidRequestError):
    """Token ids instead of a text: they are of another model's tokenizer."""

    code = "tokens_unsupported"


class DimensionsUnsupportedError(InvalidRequestError):
    """Vectors of another length than the model's."""

    code = "dimensions_unsupported"


class MalformedRequestError(InvalidRequestError):
    """Not HTTP/1.1, or HTTP that two readers could understand differently."""

    code = "malformed_request"


class InvalidApiKeyError(InvalidRequestError):
    """No API key, or none that this service knows."""

    status = 401
    code = "invalid_api_key"


class UrlInputDisabledError(InvalidRequestError):
    """An image given by URL to a service that fetches none."""

    status = 403
    code = "url_input_disabled"


class NotFoundError(InvalidRequestError):
    """No such route."""

    status = 404
    code = "not_found"


class ModelNotFoundError(InvalidRequestError):
    """Another model than the one that is served."""

    status = 404
    code = "model_not_found"


class MethodNotAllowedError(InvalidRequestError):
    """The route exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class NotAcceptableError(InvalidRequestError):
    """The answer cannot take the form that the Accept header asks for."""

    status = 406
    code = "not_acceptable"


class RequestTimeoutError(InvalidRequestError):
    """The head or the body of the request came too slowly."""

    status = 408
    code = "request_timeout"


class SpaceMismatchError(InvalidRequestError):
    """The caller expects vectors of another embedding space."""

    status = 412
    code = "space_mismatch"


class BodyTooLargeError(InvalidRequestError):
    """The request body is over its limit."""

    status = 413
    code = "body_too_large"


class TooManyImagesError(InvalidRequestError):
    """More images than one request may carry."""

    status = 413
    code = "too_many_images"


class TooManyTextsError(InvalidRequestError):
    """More texts than one request may have."""

    status = 413
    code = "too_many_texts"


class TextTooLargeError(InvalidRequestError):
    """A text of more bytes than one may have."""

    status = 413
    code = "text_too_large"


class TooManyLabelsError(InvalidRequestError):
    """Labels of more prompts than one request may have."""

    status = 413
    code = "too_many_labels"


class ResponseTooLargeError(InvalidRequestError):
    """The answer would be over its limit."""

    status = 413
    code = "response_too_large"


class UnsupportedMediaTypeError(InvalidRequestError):
    """A Content-Type that the route does not read."""

    status = 415
    code = "unsupported_media_type"


class HeadTooLargeError(InvalidRequestError):
    """A request line and headers with too many bytes, or too many headers."""

    status = 431
    code = "head_too_large"


class ImageError(ServiceError):
    """One image cannot be used; the others of the request are untouched."""

    status = 422
    kind = "invalid_request_error"


class ImageTooLargeError(ImageError):
    """An image over the limit of bytes, pixels or side."""

    status = 413
    code = "image_too_large"


class UnsupportedImageFormatError(ImageError):
    """Bytes that are no image of an allowed format."""

    status = 415
    code = "unsupported_image_format"


class ImageUndecodableError(ImageError):
    """An image of an allowed format whose content is broken."""

    code = "image_undecodable"


class ImageTruncatedError(ImageError):
    """An image that ends early."""

    code = "image_truncated"


class ImageSuspiciousError(ImageError):
    """An image made to cost more than an honest one, or one that cannot be what it claims."""

    code = "image_suspicious"


class FileUnreadableError(ImageError):
    """A file of the `embed` command that cannot be read; no request names files."""

    code = "file_unreadable"


class UrlForbiddenError(ImageError):
    """A URL that the service does not fetch; why not is nobody's business."""

    code = "url_forbidden"


class UrlFetchFailedError(ImageError):
    """A URL that may be fetched, and whose host did not give an image."""

    code = "url_fetch_failed"


class ItemsFailedError(ServiceError):
    """A request that failed as a whole because of some of its images, or texts.

    Speaks for the first of `failed` (index -> error), or for the first fault of the service
    if there is one: then trying again may help. All of them are in `details`. `items` is where
    they are in the request, if not under the plural of `item`.
    """

    def __init__(
        self, failed: Mapping[int, ServiceError], item: str = "image", items: str | None = None
    ) -> None:
        ours = ((i, error) for i, error in failed.items() if isinstance(error, ServerError))
        index, error = next(ours, next(iter(failed.items())))
        super().__init__(
            item_message(index, error, item),
            param=f"{items or f'{item}s'}[{index}]",
            retry_after_s=error.retry_after_s,
        )
        self.status = error.status
        self.code = error.code
        self.kind = error.kind
        self.details = tuple(failed.items())
        self.item = item


class ServerError(ServiceError):
    """The service is at fault or at its limit; the same request may work later."""


class QueueFullError(ServerError):
    """More images are waiting than may wait."""

    status = 429
    code = "queue_full"
    kind = "rate_limit_error"


class MemoryFullError(ServerError):
    """The bodies of other requests take all the memory there is for them."""

    status = 429
    code = "memory_full"
    kind = "rate_limit_error"


class InternalError(ServerError):
    """A fault of the service."""

    code = "internal"


class NonFiniteError(ServerError):
    """The model gave a vector with NaN or infinite values."""

    code = "non_finite"


class OutOfMemoryError(ServerError):
    """The device has not enough memory even for this image alone."""

    code = "out_of_memory"


class NotReadyError(ServerError):
    """The model is not loaded yet, or could not be."""

    status = 503
    code = "not_ready"


class DrainingError(ServerError):
    """The service is shutting down."""

    status = 503
    code = "draining"


class TooManyConnectionsError(ServerError):
    """All connections that the service keeps open are taken."""

    status = 503
    code = "too_many_connections"


class WorkerDeadError(ServerError):
    """The inference thread is gone."""

    status = 503
    code = "worker_dead"


class DeadlineExceededError(ServerError):
    """The request's time ran out before its vectors were computed."""

    status = 504
    code = "deadline_exceeded"


def item_message(index: int, error: ServiceError, item: str = "image") -> str:
    """Return an image's or text's public error message, naming it by its place in the request."""
    return f"{item} {index}: {error.message}"
