"""The operating system's limit of open files, of which each connection is one."""

import resource

import structlog

_log = structlog.get_logger(__name__)

# Of the process itself: listeners, logs, weights, libraries, connections that it opens.
_OTHER_FILES = 256


def allow_connections(connections: int) -> None:
    """Raise this process's limit as far as it may and need be; say so when that is not enough.

    Shells give 1,024 where the system would allow far more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning(
            "too few open files for SIGLIP_MAX_CONNECTIONS", allowed=allowed, wanted=wanted
        )
