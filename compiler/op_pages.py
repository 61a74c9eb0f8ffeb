"""The op reference as Markdown, which stands in ``compiler/ops/REFERENCE.md``."""

import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import groupby

from .op_reference import OpEntry, entries, module_doc, trait_docs

HEAD = """\
# The op set

<!-- Generated: xllmc ops --markdown > compiler/ops/REFERENCE.md. A test compares; do not edit. -->

Generated from the registry by `xllmc ops --markdown > compiler/ops/REFERENCE.md`; change the docstrings of
`compiler/ops/*.py` and generate it again. `xllmc ops NAME` shows one op.

An op is called with **operands** (values of the graph, numbers or `None`), then **attributes** by name, which are
constants. Its meaning is its eager reference on torch tensors. A kernel may differ from that by the op's **tolerance**,
relative to the largest magnitude in the row, by the result's dtype; *same bits* allows no difference. Types are
written `dtype[sizes]`: `T` tokens of a step, `S` sequences, `R` rows whose logits are wanted, `B` columns of the block
table.

For **cpu** (C++) and **triton** (CUDA, Ascend) an op has a *kernel* of its own, or is computed together with its
neighbours inside of a *generated loop* or the epilogue of a kernel, or needs *no code* because its result is its
operand's bytes under another shape.
"""

OWN = "xllmc.compiler.ops."


def reference() -> str:
    """The whole reference of xllmc's own ops; those of plugins are their documentation's."""
    return (
        "\n".join([HEAD, *_traits(), *_contents(), *(line for m in _modules() for line in _module(*m))]).rstrip() + "\n"
    )


def _modules() -> Iterator[tuple[str, list[OpEntry]]]:
    own = [e for e in entries() if e.module.startswith(OWN)]
    for module, found in groupby(own, key=lambda e: e.module):
        yield module, list(found)


def _traits() -> Iterator[str]:
    yield from ("| trait | promise |", "| --- | --- |")
    for name, doc in trait_docs().items():
        yield f"| `{name}` | {_markdown(doc)} |"
    yield ""


def _contents() -> Iterator[str]:
    for module, found in _modules():
        links = ", ".join(f"[`{e.name}`](#{e.name if _is_long(e) else _anchor(module)})" for e in found)
        yield f"- [{_title(module)}](#{_anchor(module)}): {links}"
    yield ""


def _module(module: str, found: list[OpEntry]) -> Iterator[str]:
    yield from (f"## Module {_title(module)}", "", _markdown(module_doc(module)), "")
    short = [e for e in found if not _is_long(e)]
    if short:
        yield from _table(short)
    for e in found:
        if _is_long(e):
            yield from _op(e)


def _table(found: list[OpEntry]) -> Iterator[str]:
    """A row an op; what holds for all of them is said once, above."""
    shared = [t for t in found[0].traits if all(t in e.traits for e in found)]
    columns: dict[str, Callable[[OpEntry], str]] = {
        "op": lambda e: f"`{e.name}({', '.join(o.name for o in e.operands)})`",
        "result": lambda e: _cell(e.doc),
        "traits": lambda e: _names(t for t in e.traits if t not in shared),
        "tolerance": tolerance,
        "targets": targets,
    }
    common = [f"traits {_names(shared)}"] if shared else []
    for name in ("tolerance", "targets"):
        if len({columns[name](e) for e in found}) == 1:
            common.append(f"{name} {columns.pop(name)(found[0])}")
    if not any(columns["traits"](e) for e in found):
        del columns["traits"]
    yield from (f"Of {'all these' if len(found) > 1 else 'this one'}: {'; '.join(common)}.", "") if common else ()
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    yield from (f"| {' | '.join(cell(e) for cell in columns.values())} |" for e in found)
    yield ""


def _op(e: OpEntry) -> Iterator[str]:
    yield from (f"### {e.name}", "", "```python", *wrapped_signature(e), "```", "", _markdown(e.doc), "")
    yield f"- traits: {_names(e.traits) or 'none'}"
    yield f"- tolerance: {tolerance(e)}"
    yield f"- rules: {rules(e)}"
    yield f"- targets: {targets(e)}"
    yield ""


def wrapped_signature(e: OpEntry, width: int = 100) -> list[str]:
    """The signature, one operand or attribute a line where it is long."""
    if len(e.signature) <= width:
        return [e.signature]
    head, rest = e.signature.split("(", 1)
    inner, result = rest.rsplit(") -> ", 1)
    parts = re.split(r", (?=\*|\w+: )", inner)
    return [f"{head}(", *(f"    {part}," for part in parts), f") -> {result}"]


def tolerance(e: OpEntry) -> str:
    """``f32 1e-05, bf16 2^-7``, or that nothing may differ."""
    if not any(e.tolerance.values()):
        return "same bits"
    return ", ".join(f"{dtype} {_error(value)}" for dtype, value in e.tolerance.items())


def _error(value: float) -> str:
    exact = Fraction(value)
    power = exact.denominator.bit_length() - 1
    return f"2^-{power}" if exact.numerator == 1 and power else f"{value:g}"


def rules(e: OpEntry) -> str:
    present = [name for name, there in (("types", e.type_rule), ("cost", e.cost_rule)) if there]
    return " and ".join(present) or "none"


def targets(e: OpEntry) -> str:
    return ", ".join(f"{name} ({how})" for name, how in e.targets.items()) or "none"


def _is_long(e: OpEntry) -> bool:
    """Whether the op has more to say than a row of its module's table holds."""
    plain = all(o.type in ("Tensor", "Tensor | float") for o in e.operands)
    return bool(e.attributes) or not plain or "\n" in e.doc or not (e.type_rule and e.cost_rule)


def _title(module: str) -> str:
    return module.rpartition(".")[2]


def _anchor(module: str) -> str:
    return f"module-{_title(module)}"


def _names(traits: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in traits)


def _cell(text: str) -> str:
    return _markdown(text).replace("|", r"\|")


def _markdown(text: str) -> str:
    return text.replace("``", "`")
