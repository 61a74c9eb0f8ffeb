"""How many threads this process may keep busy."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def default_threads(cgroup: Path = _CGROUP) -> int:
    """CPUs this process may run on, or as many as its container's quota pays for: more would wait for each other.

    ``cgroup``: the root of the process's control group, of version 2 (``cpu.max``) or 1 (``cpu/cpu.cfs_quota_us``).
    """
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = _quota(cgroup)
    except (OSError, ValueError):
        return cpus
    return max(1, min(cpus, quota // period)) if quota > 0 else cpus


def _quota(cgroup: Path) -> tuple[int, int]:
    """Microseconds of CPU time in each period; ValueError or OSError where there is no limit."""
    if (cgroup / "cpu.max").is_file():
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota), int(period)
    version_1 = cgroup / "cpu"
    return int((version_1 / "cpu.cfs_quota_us").read_text()), int((version_1 / "cpu.cfs_period_us").read_text())
