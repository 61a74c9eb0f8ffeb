"""The thread pool: every task once, launches in order, clean floating-point state on every thread."""

import ctypes
import time

import numpy as np
import pytest


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_task_is_taken_exactly_once(kernels, threads):
    counts = [np.zeros(1000, np.int64) for _ in range(50)]
    kernels.run([("count_tasks", (c, len(c))) for c in counts], threads)
    assert all((c == 1).all() for c in counts)


def test_a_parked_pool_wakes_up(kernels):
    counts = np.zeros(10, np.int64)
    for _ in range(3):
        kernels("count_tasks", counts, 10)
        time.sleep(0.01)
    assert (counts == 3).all()


def test_many_short_runs_back_to_back(kernels):
    counts = np.zeros(4, np.int64)
    for _ in range(2000):
        kernels("count_tasks", counts, 4)
    assert (counts == 2000).all()


def test_an_empty_list_returns(kernels):
    assert kernels.run([]) == []


def test_seconds_are_given_for_each_launch(kernels):
    seconds = kernels.run([("count_tasks", (np.zeros(100, np.int64), 100))] * 3)
    assert len(seconds) == 3 and all(0 < s < 1 for s in seconds)


def test_flushing_of_denormals_in_the_caller_changes_nothing(kernels):
    """A caller that flushes denormals (other libraries set this) must not compute other bits than the workers."""
    x, out = np.full((2, 4), 1e-40, np.float32), np.zeros((2, 4), np.float32)
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 8)()  # glibc's x86-64 fenv_t, whose last word is MXCSR
    libm.fegetenv(environment)
    saved, environment[7] = environment[7], environment[7] | 0x8040
    libm.fesetenv(environment)
    kernels("pointwise_silu", x, out, 2, 4, threads=2)
    environment[7] = saved
    libm.fesetenv(environment)
    assert (out.view(np.uint32) == np.float32(5e-41).view(np.uint32)).all()
