"""How many cores a container leaves."""

import os
from pathlib import Path

import pytest

from app.cores import count_cores

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("110000 100000\n", min(2, CORES)),
        ("99900000 100000\n", CORES),
        ("max 100000\n", CORES),
        ("", CORES),
        ("1 0", CORES),
    ],
)
def test_a_limit_of_the_second_version(limit: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(limit)

    assert count_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("100000\n", 1), ("-1\n", CORES)])
def test_a_limit_of_the_first_version(quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert count_cores(tmp_path) == cores


def test_no_limit(tmp_path: Path) -> None:
    assert count_cores(tmp_path) == CORES


def test_cores_that_are_not_ours_do_not_count() -> None:
    """What `taskset` and a container's cpuset leave."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(ours)})
    try:
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, ours)
