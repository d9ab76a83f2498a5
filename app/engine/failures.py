"""When one bad image, or text, ends its whole request."""

from collections.abc import Mapping

from app.engine.protocol import Modality
from app.errors import DrainingError, ItemsFailedError, ServiceError, WorkerDeadError


def raise_if_failed(
    modality: Modality, outcomes: Mapping[int, object], *, partial: bool = False
) -> None:
    """Raise `ItemsFailedError` if any of the outcomes is a `ServiceError`, unless `partial`.

    Whatever ends all work alike is raised as it is: it is no matter of one image.
    """
    failed = {i: outcome for i, outcome in outcomes.items() if isinstance(outcome, ServiceError)}
    for error in failed.values():
        if isinstance(error, WorkerDeadError | DrainingError):
            raise error
    if failed and not partial:
        raise ItemsFailedError(failed, modality)
