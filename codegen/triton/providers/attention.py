"""Paged attention: a program has a tile of queries that share keys and values, and walks blocks of their context.

A tile has several tokens of one sequence and the query heads of one group, so that every block that is read serves as
many rows as there are (``attention_variants.py``, ``attention_tiles.py``).

**Batch-invariant mode** has tiles of one shape for all steps, and cuts contexts at fixed positions into parts
(``attention_tiles.part_begin``). A part is one chain from zero: its blocks begin at multiples of their length, so a
position has the same neighbours in its block whoever asks. Parts are merged in ascending order by the same statements,
either by the program that walks all of them, or by the second kernel where parts have programs of their own. Blocks and
parts that hold nothing for a row leave its state as it is: they multiply by 2**0 and add zero. So a query's bits depend
on its own context alone: not on other sequences, nor on how its prompt was cut into steps. As for products
(``invariant.py``), that rests on matrix instructions treating the rows of a tile alike; and a value that is not finite,
at a position which a later token of the same tile sees, spoils the earlier ones.
"""

from dataclasses import dataclass
from math import e, log2
from typing import Any

from ....compiler.ir.program import type_of
from ....compiler.ir.types import PagedType
from ....runtime.artifact.dtypes import ITEM_BYTES
from ....runtime.artifact.pages import PAGE_TOKENS, page_bytes
from ..attention_tiles import FIRST_PART, MOST_SPLITS, PARTS_OF_OCTAVE, Geometry, parts
from ..attention_variants import Variant, variants
from ..kernel import Argument, Config, TritonCall, axis, power_of_two
from ..registering import provides


@provides("paged_attention")
def paged_attention(call: TritonCall) -> None:
    q, state, _, _, _, *words = call.node.args
    cache: PagedType = type_of(state)
    if type_of(q).dtype != cache.dtype:
        raise ValueError(f"attention requires queries of the cache's dtype {cache.dtype}, got {type_of(q).dtype}")
    shape = Geometry(
        type_of(q).shape[1],
        cache.kv_heads,
        cache.key_dim,
        cache.value_dim,
        cache.dtype,
        any(w is not None for w in words),
    )
    context = call.program.facts.max_context
    chosen = variants(shape, context, call.machine, call.invariant)
    _Attention(call, shape, parts(context)).launch(chosen)


@dataclass(frozen=True)
class _Attention:
    """One call."""

    call: TritonCall
    shape: Geometry
    parts: int

    def launch(self, chosen: tuple[Variant, ...]) -> None:
        lines = max(v.slots * self.shape.heads * self._pieces(v) for v in chosen)
        sums = {}
        if lines:
            sums["partial"] = self.call.scratch("partial", "f32", (lines * self.shape.value_dim,))
            sums["stats"] = self.call.scratch("stats", "f32", (lines * 2,))
        if lines and not self.call.invariant:
            sums["counts"] = self.call.scratch("counts", "i32", (1,))
        for variant in chosen:
            self._tiles(variant, sums)
            if variant.slots:
                self._combine(variant, sums)

    def _pieces(self, variant: Variant) -> int:
        return self.parts if variant.pieces == "parts" else variant.programs

    def _tiles(self, variant: Variant, sums: dict[str, Argument]) -> None:
        q, state, block_table, query_starts, positions, *rest = self.call.node.args
        words = rest[0] if rest else None
        operands = {
            "q": self.call.value(q),
            "state": self.call.value(state),
            "block_table": self.call.value(block_table),
            "query_starts": self.call.value(query_starts),
            "positions": self.call.value(positions),
        }
        if words is not None:
            operands["ancestors"] = self.call.value(words)
        shape, chosen, softcap = self.shape, variant.tile, self._attribute("softcap")
        by_sequence = variant.which == "sequence"
        sequences, tiles = axis(type_of(block_table).shape[0]), axis(type_of(q).shape[0], chosen.tokens)
        page = page_bytes(shape.kv_heads, shape.key_dim, shape.value_dim, shape.dtype)
        self.call.launch(
            "attention",
            "attention.py.j2",
            operands | (sums if variant.slots else {"out": self.call.result()}),
            (sequences if by_sequence else tiles, axis(shape.kv_heads * chosen.folds), axis(variant.programs)),
            chosen.config,
            when=variant.when,
            part=variant.part,
            which=variant.which,
            pieces=variant.pieces,
            plain=not by_sequence and variant.pieces != "parts",
            short=variant.short,
            window=self._attribute("window"),
            softcap=softcap,
            scale=self._attribute("scale"),
            factor=(softcap or self._attribute("scale")) * log2(e),
            ancestors=words is not None,
            words=type_of(words).shape[1] if words is not None else 0,
            tokens=chosen.tokens,
            fold=chosen.fold,
            folds=chosen.folds,
            group=shape.group,
            kv_heads=shape.kv_heads,
            page_tokens=PAGE_TOKENS,
            page_items=page // ITEM_BYTES[shape.dtype],
            parts=self.parts,
            first_part=FIRST_PART,
            per_octave=PARTS_OF_OCTAVE,
            **self._dims(),
        )

    def _combine(self, variant: Variant, sums: dict[str, Argument]) -> None:
        q, _, block_table, query_starts = self.call.node.args[:4]
        by_sequence, ordered = variant.which == "sequence", variant.pieces == "parts"
        lines = (axis(type_of(q).shape[0]), axis(self.shape.heads))
        if by_sequence:
            lines = (axis(type_of(block_table).shape[0]), axis(self.shape.heads))
        self.call.launch(
            "attention_combine",
            "attention_combine.py.j2",
            {**sums, "query_starts": self.call.value(query_starts), "out": self.call.result()},
            (*lines, axis(variant.short if by_sequence else 1)),
            Config(warps=1 if ordered else 4, stages=1),
            when=variant.when,
            part=f"{variant.part}.combine",
            which=variant.which,
            ordered=ordered,
            short=variant.short,
            heads=self.shape.heads,
            parts=self.parts,
            most=power_of_two(self.parts) if ordered else MOST_SPLITS,
            **self._dims(),
        )

    def _dims(self) -> dict[str, Any]:
        keys, values = self.shape.padded
        ieee = ', input_precision="ieee"' if self.shape.dtype == "f32" else ""
        sizes = {"key_dim": self.shape.key_dim, "value_dim": self.shape.value_dim, "KEYS": keys, "VALUES": values}
        return {**sizes, "ieee": ieee}

    def _attribute(self, name: str) -> Any:
        return self.call.node.target.attribute(self.call.node.kwargs, name)
