"""Checkpoints on the Hugging Face hub: downloaded, or explained why they cannot be."""

import io
import logging
import sys
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from model.errors import CheckpointError, HubUnreachableError

_log = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0

_HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
)
_WAYS_OUT = "give a local folder instead, or random:base-patch16-224 to try without weights"
# From a proxy that lets nobody out; the hub itself explains a 403, and is caught as such before.
_PROXY_STATUSES = (403, 407)


class _LoggedProgress(tqdm):  # type: ignore[misc] # neither here
    """The client's progress as a log line now and then, for where no terminal shows a bar."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._logged_at = time.monotonic()
        super().__init__(*args, **options, file=io.StringIO())  # or it ends a line on stderr

    def display(self, *_: object, **__: object) -> bool:
        """Log how many of all bytes are here, where the client would redraw the bar."""
        now = time.monotonic()
        if self.unit == "B" and self.n and now >= self._logged_at + _LOG_EVERY_S:
            self._logged_at = now
            _log.info("downloading: %.0f of %.0f MB", self.n / 1e6, (self.total or 0) / 1e6)
        return True


def download_checkpoint(repo_id: str, revision: str | None) -> Path:
    """Return the local snapshot of a hub repository, whose folder is named by its commit.

    What is in the cache is not downloaded again; a file that is cut off goes on where it ended, as
    long as this process lives. A terminal shows a progress bar, other places get log lines.

    Raises `CheckpointError`, or `HubUnreachableError` when only the network is at fault.
    """
    hooks = get_session().event_hooks["request"]
    if _wait_no_longer not in hooks:
        hooks.append(_wait_no_longer)
    try:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=list(_HUB_FILES),
                tqdm_class=None if sys.stderr.isatty() else _LoggedProgress,
            )
        )
    except Exception as error:  # also what the client lets through of its transport and of JSON
        raise _explain_download(error, repo_id, revision) from error


def _wait_no_longer(request: Any) -> None:
    """Give every request a timeout: the client asks what there is with none, so maybe for ever.

    It is the one that the client gives a request for a file's head.
    """
    seconds = request.extensions["timeout"]
    request.extensions["timeout"] = {
        phase: seconds[phase] or constants.HF_HUB_ETAG_TIMEOUT for phase in seconds
    }


def _explain_download(error: Exception, repo_id: str, revision: str | None) -> CheckpointError:
    where = f"{repo_id} at {revision}" if revision else repo_id
    # A more special error comes before the one it derives from.
    known: tuple[tuple[type[Exception], str], ...] = (
        (HFValidationError, f"{repo_id!r} is neither a folder nor a hub id of the form owner/name"),
        (RevisionNotFoundError, f"the hub has no revision {revision} of {repo_id}"),
        (GatedRepoError, f"{repo_id} is gated: accept its terms on the hub and set HF_TOKEN"),
        (
            RepositoryNotFoundError,
            f"the hub has no {repo_id}, or it is private: check the name, set HF_TOKEN",
        ),
    )
    for kind, message in known:
        if isinstance(error, kind):
            return CheckpointError(message)
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if status is not None and 400 <= status < 500 and status not in _PROXY_STATUSES:
        advice = "check HF_TOKEN" if status == HTTPStatus.UNAUTHORIZED else _WAYS_OUT
        return CheckpointError(f"the hub refuses {where}: HTTP {status}; {advice}")
    if "Consistency check failed" in str(error):  # the client has no class for it
        return CheckpointError(f"{where} came with another size than announced: try again")
    if _is_of_transfer(error):
        return HubUnreachableError(
            f"the download of {where} broke off ({type(error).__name__}): try again, or {_WAYS_OUT}"
        )
    if isinstance(error, OSError) and not isinstance(
        error, LocalEntryNotFoundError | HfHubHTTPError
    ):
        reason = error.strerror or type(error).__name__
        return CheckpointError(f"{where} cannot be stored in the cache (HF_HOME): {reason}")
    offline = isinstance(cause, OfflineModeIsEnabled)
    reason = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
    return HubUnreachableError(f"{reason} and the cache holds no copy of {where}; {_WAYS_OUT}")


def _is_of_transfer(error: Exception) -> bool:
    """Tell whether the network failed while files came, so after the hub had answered.

    Asking the hub what there is goes through its API. The client wraps what fails in finding a
    file, not what fails in fetching it; its other transport raises Python's own errors.
    """
    if isinstance(error, HfHubHTTPError):  # an answer
        return False
    request = getattr(error, "request", None)  # which all errors of the client's transport have
    if request is None:
        return isinstance(error, ConnectionError | TimeoutError)
    return "/api/" not in request.url.path
