import os
from pathlib import Path

import pytest
from xllmc.runtime.threads import default_threads


@pytest.mark.parametrize(
    ("text", "threads"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None), ("", None)]
)
def test_a_containers_quota_bounds_the_threads(tmp_path: Path, text: str, threads: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert default_threads(tmp_path) == (threads or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("quota", "threads"), [("100000", 1), ("-1", None)])
def test_quotas_of_the_first_version_count_too(tmp_path: Path, quota: str, threads: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert default_threads(tmp_path) == (threads or len(os.sched_getaffinity(0)))


def test_no_control_group_is_no_quota(tmp_path: Path) -> None:
    assert default_threads(tmp_path) == len(os.sched_getaffinity(0))
