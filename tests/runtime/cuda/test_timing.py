"""Timed kernels are launched one by one, and compute the same."""

from pathlib import Path

import numpy as np

from tests.runtime.cuda.state_scenarios import profiled
from tests.runtime.cuda.stub_driver import Gpu
from tests.runtime.cuda.toy_cuda import cuda_plan


def test_every_kernel_is_timed_outside_of_graphs(gpu: Gpu, cuda_toy: Path, toy_library: Path) -> None:
    record = gpu.play(profiled, cuda_toy, toy_library)
    times, kernels, usual, timed = record.result
    launches = [launch for function in cuda_plan().functions for launch in function.launches]
    assert [(t.kernel, t.origin) for t in times] == [(launch.kernel, launch.origin) for launch in launches]
    left_out = [t.origin for t in times if not t.seconds]
    assert left_out == ["toy_logits/few"], "nine tokens are many"
    assert all(len(t.rounds) == 3 for t in times)
    assert [k.function for k in kernels] == ["forward", "sample", "score"]
    assert [k.seconds.size for k in kernels] == [len(f.launches) for f in cuda_plan().functions]
    assert np.array_equal(usual.logits, timed.logits) and usual.logits.any()
    for name in ("tokens", "logprobs", "top_ids", "top_logprobs", "target_logprobs"):
        assert np.array_equal(getattr(usual, name), getattr(timed, name)), name
    after = record.log[record.log.index({"mark": "timed"}) :]
    assert not [line for line in after if line.get("call") == "cuGraphLaunch"]
