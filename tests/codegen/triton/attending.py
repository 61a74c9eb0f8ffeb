"""Steps of attention over paged contexts: whose memory is not a number wherever no token of the step may look."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.types import TORCH_DTYPES
from xllmc.compiler.ops.attention import PagedCache
from xllmc.runtime.artifact.pages import PAGE_TOKENS

from tests.codegen.triton.checking import check_program
from tests.programs import program

_LONGEST = 4200


class Part(NamedTuple):
    """What one sequence has in a step."""

    start: int
    """Positions before it."""
    tokens: int
    text: int = 0
    """Which keys, values and queries it has, whatever the step is."""


class Heads(NamedTuple):
    heads: int = 4
    kv_heads: int = 2
    key_dim: int = 16
    value_dim: int = 16
    dtype: str = "f32"


@dataclass(frozen=True)
class Step:
    """Inputs by name, sizes, and the cache."""

    values: dict[str, torch.Tensor]
    sizes: dict[str, int]
    cache: PagedCache
    pages: int


def attention_program(
    heads: Heads, words: int = 0, scale: float = 0.3, window: int = 0, softcap: float = 0.0, context: int = 512
) -> Program:
    """One call of attention. ``words``: of ancestors; 0: none."""
    h = heads
    tree = f", %tree: i32[T, {words}]" if words else ""
    made = program(
        f"func forward(%q: {h.dtype}[T, {h.heads}, {h.key_dim}], "
        f"%s: paged<0>{h.dtype}[{h.kv_heads}, {h.key_dim}, {h.value_dim}], %table: i32[S, B], "
        f"%starts: i32[S+1], %at: i32[T]{tree}) -> (out) {{\n"
        f"  %y: {h.dtype}[T, {h.heads}, {h.value_dim}] = paged_attention(%q, %s, %table, %starts, %at, "
        f"{'%tree' if words else 'none'}, scale={scale!r}, softcap={softcap!r}, window={window})\n  return %y\n}}"
    )
    made.facts = made.facts.model_copy(update={"max_context": context})
    return made


def step(parts: Sequence[Part], heads: Heads, window: int = 0, seed: int = 0, tree: torch.Tensor | None = None) -> Step:
    """A step of these sequences, on pages in a random order. ``tree``: i32[tokens, 1 + words], each node's position
    after its sequence's start, and its ancestors.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = TORCH_DTYPES[heads.dtype]
    ends = [p.start + p.tokens for p in parts]
    counts = [-(-end // PAGE_TOKENS) for end in ends]
    columns, pages = max(counts), sum(counts) + 1
    order = torch.randperm(pages, generator=generator).tolist()
    table = torch.full((len(parts), columns), -1, dtype=torch.int32)
    keys = torch.full((pages * PAGE_TOKENS, heads.kv_heads, heads.key_dim), torch.nan, dtype=dtype)
    values = torch.full((pages * PAGE_TOKENS, heads.kv_heads, heads.value_dim), torch.nan, dtype=dtype)
    queries = []
    for index, (part, end, count) in enumerate(zip(parts, ends, counts, strict=True)):
        first = max(0, part.start - window + 1) if window else 0
        own = torch.tensor([order.pop() for _ in range(count)])
        table[index, first // PAGE_TOKENS : count] = own[first // PAGE_TOKENS :].int()
        places = torch.arange(first, end)
        slots = own[places // PAGE_TOKENS] * PAGE_TOKENS + places % PAGE_TOKENS
        key, value, query = text(part.text, heads)
        keys[slots], values[slots] = key[places].to(dtype), value[places].to(dtype)
        queries.append(query[part.start : end].to(dtype))
    starts = torch.tensor([0, *torch.tensor([p.tokens for p in parts]).cumsum(0).tolist()], dtype=torch.int32)
    given = {"q": torch.cat(queries), "table": table, "starts": starts}
    given["at"] = torch.cat([torch.arange(p.start, e) for p, e in zip(parts, ends, strict=True)]).int()
    if tree is not None:
        before = torch.tensor([p.start for p in parts], dtype=torch.int32).repeat_interleave(starts.diff())
        given["at"], given["tree"] = before + tree[:, 0], tree[:, 1:].contiguous()
    most = max(p.tokens for p in parts)
    sizes = {"T": int(starts[-1]), "S": len(parts), "B": columns, "Q": most, "R": 1}
    return Step(given, sizes, PagedCache(keys, values), pages)


@cache
def text(number: int, heads: Heads) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys, values and queries of the positions of a text."""
    draw = torch.Generator().manual_seed(number)
    shapes = (heads.kv_heads, heads.key_dim), (heads.kv_heads, heads.value_dim), (heads.heads, heads.key_dim)
    key, value, query = (torch.randn(_LONGEST, *shape, generator=draw) for shape in shapes)
    return key, value, query


def check(made: Program, given: Step, work: Path, **options: Any) -> torch.Tensor:
    """The kernels' result, which is the reference's."""
    results = check_program(
        made, work, values=given.values, sizes=given.sizes, states={"s": given.cache}, pages=given.pages, **options
    )
    return results["out"]
