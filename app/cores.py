"""How many cores this process may keep busy: the machine's, or what its container is limited to."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def count_cores(cgroup: Path = _CGROUP) -> int:
    """Return the cores that the scheduler gives this process, at least 1.

    A limit on processor time (`docker run --cpus`, a limit in Kubernetes) hides no core: as many
    threads as the machine has cores would use it up at once, and then all stand still together.
    """
    limit = _read_limit(cgroup)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, math.ceil(limit)) if limit else cores or 1)


def _read_limit(cgroup: Path) -> float | None:
    """Return the cores' worth of time that a container gets, None for no limit; cgroups v2, v1."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        limit = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return limit if limit > 0 else None
