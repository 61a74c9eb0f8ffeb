"""What tests of states and weights have the runtime do in the process that has the stub driver."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from xllmc.runtime.artifact.dtypes import ITEM_BYTES
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.artifact.schema import StateEntry
from xllmc.runtime.cuda.device import Device
from xllmc.runtime.cuda.state_memory import StateMemory
from xllmc.runtime.cuda.virtual import VirtualRange
from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import SamplingParams
from xllmc.runtime.states.transfer import CopyPage, LoadPage, MoveTokens, StorePage, Transfer

from tests.runtime.cuda.scenarios import SMALL, running, step_of
from tests.runtime.toy import checkpoint

PAGE = 32


def memory_at(address: int, size: int) -> np.ndarray:
    """The stub's memory as u8 [size]: a view."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def carry_out(states: list[StateEntry], pages: list[int], host: list[int], transfers: list[Transfer]) -> Any:
    """Every state's pages before and after; all have random content."""
    device = Device("cuda:sm_90")
    memory = StateMemory(device, states, pages, host, PAGE)
    device.activate()
    memory.grow(pages)
    views = {s.name: memory_at(memory.addresses[s.name], pages[s.group] * s.page_bytes) for s in states}
    for seed, view in enumerate(views.values()):
        view[:] = np.random.default_rng(seed).integers(0, 256, view.size)
    before = {name: view.copy() for name, view in views.items()}
    memory.carry_out(transfers)
    device.synchronize()
    after = {name: view.copy() for name, view in views.items()}
    memory.close()
    return before, after


def modelled(
    states: list[StateEntry],
    pages: list[int],
    host: list[int],
    before: dict[str, np.ndarray],
    transfers: list[Transfer],
) -> dict[str, np.ndarray]:
    """The same, by numpy on pages of plain rows."""
    after = {}
    for state in states:
        memory = before[state.name].copy().reshape(pages[state.group], state.page_bytes)
        stored = np.zeros((host[state.group], state.page_bytes), np.uint8)
        item, keys = ITEM_BYTES[state.dtype], state.kv_heads * PAGE * state.key_dim * ITEM_BYTES[state.dtype]
        key_rows = memory[:, :keys].reshape(len(memory), state.kv_heads, PAGE, state.key_dim * item)
        values = memory[:, keys : keys + state.kv_heads * PAGE * state.value_dim * item]
        value_rows = values.reshape(len(memory), state.kv_heads, PAGE, state.value_dim * item)
        for transfer in transfers:
            if transfer.group != state.group:
                continue
            match transfer:
                case CopyPage(source=source, target=target):
                    memory[target] = memory[source]
                case StorePage(page=page, slot=slot):
                    stored[slot] = memory[page]
                case LoadPage(slot=slot, page=page):
                    memory[page] = stored[slot]
                case MoveTokens(sources=sources, targets=targets):
                    for rows, start in ((key_rows, 0), (value_rows, keys)):
                        read = [rows[s // PAGE, :, s % PAGE].copy() for s in sources]
                        for target, row in zip(targets, read, strict=True):
                            rows[target // PAGE, :, target % PAGE] = row
                        flat = memory[:, start : start + rows[0].size]
                        flat[:] = rows.reshape(len(memory), -1)
        after[state.name] = memory.reshape(-1)
    return after


def grow_range(sizes: list[int]) -> list[int]:
    """Bytes that are mapped after each growth; content stays."""
    device = Device("cuda:sm_90")
    memory = VirtualRange(device, sizes[-1], "a test's memory")
    mapped: list[int] = []
    for number, size in enumerate(sizes):
        memory.grow(size)
        view = memory_at(memory.address, size)
        if number:
            assert view[sizes[number - 1] - 1] == number - 1
        view[-1] = number
        mapped.append(memory.mapped)
    device.close()
    return mapped


def swapped(engine: Path, library: Path, prompts: list[list[int]], params: SamplingParams, options: Any) -> Any:
    """Completions of more sequences than there are pages for, and how often one had to make room."""
    with running(engine, library, **options) as (loaded, _, _):
        return loaded.generate(prompts, params), loaded.stats().preemptions


def updated(engine: Path, library: Path, tokens: list[int]) -> Any:
    """Logits before and after an update, and the addresses that weights have in graphs."""
    with running(engine, library) as (loaded, stub, _):
        before = loaded.logits(tokens)
        stub.mark("update")
        version = loaded.update_weights(checkpoint(5))
        stub.mark("updated")
        return before, version, loaded.logits(tokens)


def weights_of(engine: Path) -> dict[str, np.ndarray]:
    """The bytes that each weight has on the device."""
    with Engine.load(engine, **SMALL) as loaded:
        memory = loaded._runner._backend._plan.weights
        sizes = {w.name: int(np.prod(w.shape)) * ITEM_BYTES[w.dtype] for w in loaded.manifest.weights}
        found = {name: memory_at(address, sizes[name]).copy() for name, address in memory.addresses.items()}
        try:
            loaded.update_weights(checkpoint(1))
        except OptionError as problem:
            return {**found, "said": np.array(str(problem))}
        return found


def profiled(engine: Path, library: Path) -> Any:
    """Times of a step's kernels, and the results beside those of the step as it usually runs."""
    step = step_of((9, 3, 3, 4), True, True)
    with running(engine, library) as (loaded, stub, _):
        usual = loaded.step(step)
        stub.mark("profile")
        times = loaded.profile(step, rounds=3)
        stub.mark("timed")
        runner = loaded._runner
        timed, kernels = runner.run(runner.prepare(step), timed=True)
        return times, kernels, usual, timed


def used_after(engine: Path, library: Path, lengths: list[int]) -> tuple[int, list[int]]:
    """Device memory after loading, and after requests of each length."""
    with running(engine, library, max_sequences=6, kv_tokens=None) as (loaded, stub, _):
        at_first, used = stub.used, []
        for length in lengths:
            loaded.generate([[5] * length] * 6, SamplingParams(temperature=0, max_tokens=1))
            used.append(stub.used - at_first)
        return at_first, used
