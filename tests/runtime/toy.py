"""A tiny engine made by hand: its kernels are a page of C, and numpy computes the same logits to the last bit.

The logits of a token are sums over the values of the tokens before it, weighted by position: once over all of them
(group 0), once over a window (group 1). So a wrong page, slot, position or window changes them.
"""

import subprocess
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from xllmc.runtime.artifact.recipe import Recipe, Tensor
from xllmc.runtime.artifact.schema import (
    ABI_VERSION,
    SCHEMA_VERSION,
    BufferEntry,
    FunctionPlan,
    InputEntry,
    Integer,
    KernelLibrary,
    Launch,
    Manifest,
    ModelFacts,
    PassRecord,
    Plan,
    Pointer,
    Scalar,
    StateEntry,
    StateGroup,
    WeightEntry,
)
from xllmc.runtime.artifact.writer import write_engine

HEADERS = Path(__file__).parents[2] / "codegen/cpu/include"
ISA = "x86-64-v3"
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
END = 256
VOCAB = 260
WINDOW = 40
MAX_CONTEXT = 200
PAGE = 32

SOURCE = r"""
#include "xllmc/pool.h"
#include "xllmc/sampler.h"

// args: token_ids, values, slots, state, T
XLLMC_EXPORT void toy_store(const xllmc_arg* a, const xllmc_worker* w) {
    auto ids = (const int32_t*)a[0].p;
    auto values = (const float*)a[1].p;
    auto slots = (const int32_t*)a[2].p;
    for (int64_t t = w->index; t < a[4].i; t += w->count) ((float*)a[3].p)[slots[t]] = values[ids[t]];
}

// args: positions, query_starts, rows, table, state, coefficients, logits, R, S, B, V, window (0: all), add
XLLMC_EXPORT void toy_logits(const xllmc_arg* a, const xllmc_worker* w) {
    auto positions = (const int32_t*)a[0].p;
    auto starts = (const int32_t*)a[1].p;
    auto rows = (const int32_t*)a[2].p;
    auto table = (const int32_t*)a[3].p;
    auto state = (const float*)a[4].p;
    auto coefficients = (const float*)a[5].p;
    const int64_t V = a[10].i, window = a[11].i;
    for (int64_t r; (r = xllmc::take(*w)) < a[7].i;) {
        int64_t s = 0;
        while (starts[s + 1] <= rows[r]) s++;
        float* out = (float*)a[6].p + r * V;
        if (!a[12].i) memset(out, 0, size_t(V) * 4);
        const int64_t last = positions[rows[r]], first = window && last >= window ? last - window + 1 : 0;
        for (int64_t p = first; p <= last; p++) {
            const float x = state[table[s * a[9].i + p / 32] * 32 + p % 32];
            for (int64_t v = 0; v < V; v++) out[v] += x * coefficients[(p * 31 + v * 17) % 64];
        }
    }
}

// args: logits, rows, history, bias_ids, bias_values, bitmask, token, logprobs, top_ids, top_values, R, V
XLLMC_EXPORT void toy_sample(const xllmc_arg* a, const xllmc_worker* w) {
    xllmc::sample((const float*)a[0].p, (const xllmc_sampling_row*)a[1].p, (const int32_t*)a[2].p,
                  (const int32_t*)a[3].p, (const float*)a[4].p, (const uint32_t*)a[5].p, (int32_t*)a[6].p,
                  (float*)a[7].p, (int32_t*)a[8].p, (float*)a[9].p, a[10].i, a[11].i, *w);
}

// args: logits, targets, logprob, R, V
XLLMC_EXPORT void toy_score(const xllmc_arg* a, const xllmc_worker* w) {
    xllmc::token_logprob((const float*)a[0].p, (const int32_t*)a[1].p, (float*)a[2].p, nullptr, a[3].i, a[4].i, *w);
}
"""


def compile_kernels(directory: Path) -> Path:
    """The kernel library, compiled for the least instruction set."""
    (directory / "toy.cpp").write_text(SOURCE)
    library = directory / "toy.so"
    flags = ["-O1", "-std=c++20", f"-march={ISA}", "-ffp-contract=off", "-shared", "-fPIC", "-pthread", "-w"]
    subprocess.run(["g++", *flags, f"-I{HEADERS}", "toy.cpp", "-o", library], cwd=directory, check=True)
    return library


def checkpoint(seed: int) -> dict[str, np.ndarray]:
    """Hugging Face names to arrays. The end token is never likely, unless a test wants it."""
    random = np.random.default_rng(seed)
    return {name: random.normal(size=VOCAB).astype(np.float32) for name in ("all.weight", "window.weight")}


COEFFICIENTS = np.random.default_rng(99).normal(size=64).astype(np.float32)
RECIPES = {
    "all": Recipe.source("all.weight", (VOCAB,), "f32"),
    "window": Recipe.of("add_scalar", Recipe.source("window.weight", (VOCAB,), "f32"), value=1.0),
}
WEIGHTS = (
    *(WeightEntry(name=n, dtype="f32", shape=(VOCAB,), recipe=r.to_json()) for n, r in RECIPES.items()),
    WeightEntry(name="coefficients", dtype="f32", shape=(64,), recipe=None),
)


def packed(tensors: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {
        "all": Tensor(tensors["all.weight"], "f32"),
        "window": Tensor(tensors["window.weight"] + np.float32(1), "f32"),
        "coefficients": Tensor(COEFFICIENTS, "f32"),
    }


def reference_logits(tensors: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """float32 [T, VOCAB], bit for bit what the kernels give."""
    weights = packed(tensors)
    columns = np.arange(VOCAB) * 17
    result = np.zeros((len(tokens), VOCAB), np.float32)
    for t in range(len(tokens)):
        for name, first in (("all", 0), ("window", max(0, t - WINDOW + 1))):
            for p in range(first, t + 1):
                result[t] += weights[name].values[tokens[p]] * COEFFICIENTS[(p * 31 + columns) % 64]
    return result


def _pointer(kind: str, name: str) -> Pointer:
    return Pointer.model_validate({"kind": kind, "name": name})


def _inputs(*names: str) -> list[Pointer]:
    return [_pointer("input", name) for name in names]


def _buffers(*names: str) -> list[Pointer]:
    return [_pointer("buffer", name) for name in names]


def _symbols(*names: str) -> list[Scalar]:
    return [Scalar.model_validate({"kind": "symbol", "name": name}) for name in names]


def _launch(kernel: str, *operands: object) -> Launch:
    return Launch.model_validate({"kernel": kernel, "operands": operands, "origin": kernel})


def _store(group: int, name: str) -> Launch:
    operands = [*_inputs("token_ids"), _pointer("weight", name), *_inputs(f"slots.{group}")]
    return _launch("toy_store", *operands, _pointer("state", name), *_symbols("T"))


def _logits(group: int, name: str, window: int) -> Launch:
    return _launch(
        "toy_logits",
        *_inputs("positions", "query_starts", "logit_rows", f"block_table.{group}"),
        _pointer("state", name),
        _pointer("weight", "coefficients"),
        *_buffers("logits"),
        *_symbols("R", "S", "B"),
        *(Integer(kind="int", value=value) for value in (VOCAB, window, group)),
    )


def toy_plan() -> Plan:
    sizes = {"logits": 4 * VOCAB, "token": 4, "logprobs": 12, "top_ids": 80, "top_values": 80, "logprob": 4}
    offsets = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    vocabulary = Integer(kind="int", value=VOCAB)
    shapes: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "token_ids": ("i32", ("T",)),
        "positions": ("i32", ("T",)),
        "query_starts": ("i32", ("S+1",)),
        "logit_rows": ("i32", ("R",)),
        **{f"slots.{g}": ("i32", ("T",)) for g in range(2)},
        **{f"block_table.{g}": ("i32", ("S", "B")) for g in range(2)},
    }
    sampled = ("token", "logprobs", "top_ids", "top_values")
    rows = {"rows": "u8", "history": "i32", "bias_ids": "i32", "bias_values": "f32", "bitmask": "u32"}
    return Plan(
        arenas={"R": sum(sizes.values())},
        buffers=tuple(BufferEntry(name=n, scale="R", offset=offsets[n], bytes=b) for n, b in sizes.items()),
        functions=(
            FunctionPlan(
                name="forward",
                inputs=tuple(InputEntry(name=n, dtype=d, shape=s) for n, (d, s) in shapes.items()),
                outputs={"logits": "logits"},
                launches=(_store(0, "all"), _store(1, "window"), _logits(0, "all", 0), _logits(1, "window", WINDOW)),
            ),
            FunctionPlan(
                name="sample",
                inputs=tuple(InputEntry(name=n, dtype=d, shape=("N",)) for n, d in rows.items()),
                outputs={name: name for name in sampled},
                launches=(
                    _launch(
                        "toy_sample",
                        *_buffers("logits"),
                        *_inputs(*rows),
                        *_buffers(*sampled),
                        *_symbols("R"),
                        vocabulary,
                    ),
                ),
            ),
            FunctionPlan(
                name="score",
                inputs=(InputEntry(name="targets", dtype="i32", shape=("R",)),),
                outputs={"logprob": "logprob"},
                launches=(
                    _launch(
                        "toy_score",
                        *_buffers("logits"),
                        *_inputs("targets"),
                        *_buffers("logprob"),
                        *_symbols("R"),
                        vocabulary,
                    ),
                ),
            ),
        ),
    )


def toy_manifest() -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        abi_version=ABI_VERSION,
        xllmc="0.1.0",
        tools={"g++": "12"},
        target="cpu",
        model=ModelFacts(
            architecture="ToyForCausalLM",
            family="toy",
            vocab_size=VOCAB,
            hidden_size=1,
            layers=2,
            max_context=MAX_CONTEXT,
            dtype="f32",
            eos_token_ids=(END,),
            parameters=2 * VOCAB,
        ),
        weights=WEIGHTS,
        states=tuple(
            StateEntry(
                name=name, kind="paged", group=g, kv_heads=1, key_dim=1, value_dim=0, dtype="f32", page_bytes=PAGE * 4
            )
            for g, name in enumerate(("all", "window"))
        ),
        groups=(
            StateGroup(index=0, window=None, page_tokens=PAGE, names=("all",)),
            StateGroup(index=1, window=WINDOW, page_tokens=PAGE, names=("window",)),
        ),
        passes=(PassRecord(name="fuse-nothing", stage="fuse", numerics="exact", matches=2, near_misses=("almost",)),),
        kernels=(KernelLibrary(isa=ISA, path="kernels/toy.so", glibc="2.17"),),
        graphs={"traced": "graph/traced.txt"},
        files=(),
    )


def tokenizer_json() -> str:
    """One token per byte, and an end token."""
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(BYTES)}, merges=[]))
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


def write_toy(
    path: Path,
    library: Path,
    seed: int = 0,
    plan: Plan | None = None,
    manifest: Manifest | None = None,
    tokenizer_files: dict[str, str] | None = None,
) -> Path:
    """Publish the toy engine at ``path``."""
    tensors = packed(checkpoint(seed))
    files = {"tokenizer.json": tokenizer_json()} if tokenizer_files is None else tokenizer_files
    with write_engine(path) as writer:
        writer.add_file("kernels/toy.so", library)
        writer.add_text("graph/traced.txt", "toy graph\n")
        for name, text in files.items():
            writer.add_text(f"tokenizer/{name}", text)
        writer.add_weights(WEIGHTS, lambda entry: tensors[entry.name])
        writer.finish(manifest or toy_manifest(), plan or toy_plan())
    return path
