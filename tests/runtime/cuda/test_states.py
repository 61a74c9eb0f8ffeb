"""States on a device: transfers, memory that pages take when they are used, and preempted sequences that come back."""

from pathlib import Path

import numpy as np
import pytest
from xllmc.runtime.artifact.pages import page_bytes
from xllmc.runtime.artifact.schema import StateEntry
from xllmc.runtime.engine import Engine
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.sampling import SamplingParams
from xllmc.runtime.states.transfer import CopyPage, LoadPage, MoveTokens, StorePage, Transfer

from tests.runtime.cuda.state_scenarios import PAGE, carry_out, grow_range, modelled, swapped, used_after
from tests.runtime.cuda.stub_driver import Gpu

MB = 1 << 20
PAGES, HOST = [6, 4], [3, 0]


def state(name: str, group: int, heads: int, keys: int, values: int, dtype: str) -> StateEntry:
    size = page_bytes(heads, keys, values, dtype)
    return StateEntry(
        name=name,
        kind="paged",
        group=group,
        kv_heads=heads,
        key_dim=keys,
        value_dim=values,
        dtype=dtype,
        page_bytes=size,
    )


STATES = [state("a", 0, 2, 6, 4, "bf16"), state("b", 0, 3, 5, 0, "bf16"), state("c", 1, 1, 4, 8, "f32")]


@pytest.mark.parametrize("seed", range(4))
def test_transfers_are_carried_out_in_order(gpu: Gpu, seed: int) -> None:
    random = np.random.default_rng(seed)
    transfers: list[Transfer] = [StorePage(0, slot, slot) for slot in range(HOST[0])]
    for kind in random.integers(0, 5, 20):
        page, other = (int(p) for p in random.integers(0, PAGES[0], 2))
        slot = int(random.integers(0, HOST[0]))
        sources, targets = (tuple(random.choice(PAGES[0] * PAGE, 7, replace=False).tolist()) for _ in range(2))
        transfers.append(
            [
                CopyPage(0, page, other),
                CopyPage(1, page % PAGES[1], other % PAGES[1]),
                StorePage(0, page, slot),
                LoadPage(0, slot, page),
                MoveTokens(0, sources, targets),
            ][kind]
        )
    before, after = gpu.play(carry_out, STATES, PAGES, HOST, transfers).result
    expected = modelled(STATES, PAGES, HOST, before, transfers)
    assert all(np.array_equal(after[name], expected[name]) for name in after)
    assert any(not np.array_equal(after[name], before[name]) for name in after)


def test_memory_is_mapped_as_it_is_needed(gpu: Gpu) -> None:
    assert gpu.play(grow_range, [1, 2 * MB, 2 * MB + 1, 40 * MB, 41 * MB, 60 * MB]).result == [
        *(2 * MB, 2 * MB, 4 * MB, 40 * MB),
        46 * MB,  # an eighth more, for it grows at its end
        60 * MB,
    ]


def test_pages_take_memory_when_a_step_first_has_them(gpu: Gpu, cuda_toy: Path, toy_library: Path) -> None:
    at_first, (short, long, again) = gpu.play(used_after, cuda_toy, toy_library, [10, 190, 40]).result
    assert at_first < 12 * MB, "inputs and buffers, and no state"
    assert (short, long, again) == (4 * MB, 4 * MB, 4 * MB), "two states, whose pages of 128 bytes all lie in 2 MB"


def test_preempted_sequences_come_back_from_the_host(
    gpu: Gpu, cuda_toy: Path, toy_library: Path, toy_engine: Path
) -> None:
    prompts = [[n, n + 1, n + 2] * 20 for n in range(6)]
    params = SamplingParams(seed=4, max_tokens=60, logprobs=1)
    scheduling = SchedulingOptions(preemption="swap", swap_tokens=600, prefix_cache=False)
    options = {"kv_tokens": 300, "scheduling": scheduling}
    made, preemptions = gpu.play(swapped, cuda_toy, toy_library, prompts, params, options).result
    assert preemptions > 0
    with Engine.load(toy_engine, max_tokens=24, max_rows=6, max_sequences=6, kv_tokens=2000) as engine:
        assert made == engine.generate(prompts, params)
