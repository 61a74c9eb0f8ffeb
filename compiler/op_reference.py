"""What the registry says about every op: the facts of ``xllmc ops`` and of ``compiler/ops/REFERENCE.md``."""

import ast
import difflib
import inspect
import re
import sys
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch

from ..runtime.artifact.errors import OptionError
from .ir.op import Op, Traits
from .ops import OPS
from .pipeline.plugins import installed_passes, installed_targets

QUALIFIED = re.compile(r"\b(?:\w+\.)+(?=\w)")
REQUIRED = inspect.Parameter.empty


class Operand(NamedTuple):
    name: str
    type: str


class Attribute(NamedTuple):
    name: str
    type: str
    default: str | None
    """As Python writes it; None: it must be given."""


@dataclass(frozen=True)
class OpEntry:
    name: str
    module: str
    """Where it is registered: ``xllmc.compiler.ops.norm``, say."""
    operands: tuple[Operand, ...]
    attributes: tuple[Attribute, ...]
    result: str
    doc: str
    traits: tuple[str, ...]
    tolerance: dict[str, float]
    """Largest relative error of a kernel, by dtype of the result; 0: the same bits as the reference."""
    type_rule: bool
    cost_rule: bool
    targets: dict[str, str]
    """Target to how it computes the op."""

    @property
    def signature(self) -> str:
        given = [f"{o.name}: {o.type}" for o in self.operands]
        named = [f"{a.name}: {a.type}" + ("" if a.default is None else f" = {a.default}") for a in self.attributes]
        parts = [
            *given,
            *(["*", *named] if named and not any(o.name.startswith("*") for o in self.operands) else named),
        ]
        return f"{self.name}({', '.join(parts)}) -> {self.result}"

    @property
    def summary(self) -> str:
        """The first paragraph of its documentation."""
        return " ".join(self.doc.partition("\n\n")[0].split())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "signature": self.signature, "summary": self.summary} | {
            "operands": [o._asdict() for o in self.operands],
            "attributes": [a._asdict() for a in self.attributes],
        }


LOOP_LANGUAGES = ("cpu", "triton")
"""In which loops are generated."""


def entries() -> list[OpEntry]:
    """Every registered op, plugins' too: by module, within it in the order of registration."""
    load_all()
    return sorted(map(entry, OPS.values()), key=lambda e: e.module)


def load_all() -> None:
    """Register what registers when it is imported: the kernels of targets, and the ops that plugins' passes bring."""
    installed_targets()
    installed_passes()


def entry(op: Op) -> OpEntry:
    operands, attributes, result = _interface(op)
    return OpEntry(
        name=op.name,
        module=_module(op),
        operands=operands,
        attributes=attributes,
        result=result,
        doc=inspect.cleandoc(op.doc),
        traits=_traits(op, operands),
        tolerance=dict(op.tolerance),
        type_rule=op.infer is not None,
        cost_rule=op.cost_model is not None,
        targets=targets_of(op),
    )


def entry_named(name: str) -> OpEntry:
    """The op's entry; OptionError with the nearest name where there is none."""
    load_all()
    if name not in OPS:
        near = difflib.get_close_matches(name, OPS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise OptionError(f"no op is called {name!r}: {hint}xllmc ops lists all of them")
    return entry(OPS[name])


def targets_of(op: Op) -> dict[str, str]:
    """Kernel language to how the op is computed: ``kernel``, ``generated loop``, or ``no code`` for a view.

    ``cpu`` is C++, ``triton`` CUDA's and Ascend's kernels.
    """
    targets = dict.fromkeys(op.kernels, "kernel")
    if op.traits.view or op.traits.pointwise or op.traits.reduction:
        for language in LOOP_LANGUAGES:
            targets.setdefault(language, "no code" if op.traits.view else "generated loop")
    return dict(sorted(targets.items()))


def module_doc(module: str) -> str:
    """The documentation of a module that has been imported."""
    return inspect.cleandoc(sys.modules[module].__doc__ or "")


def trait_docs() -> dict[str, str]:
    """Trait to what it promises, as written under the fields of ``Traits``."""
    (definition,) = ast.parse(inspect.getsource(Traits)).body
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    name = ""
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and name:
            docs[name] = " ".join(str(statement.value.value).split())
    return docs


# --- reading an op


def _module(op: Op) -> str:
    """Where it is registered: its reference may be a function of torch's, its type rule never is."""
    return (op.infer or op.reference).__module__


def _traits(op: Op, operands: tuple[Operand, ...]) -> tuple[str, ...]:
    names = [f.name for f in fields(op.traits) if getattr(op.traits, f.name) is True]
    if op.traits.mutates is not None:
        names.append(f"mutates {operands[op.traits.mutates].name}")
    return tuple(names)


def _interface(op: Op) -> tuple[tuple[Operand, ...], tuple[Attribute, ...], str]:
    """Operands, attributes and result."""
    if not _is_ours(op):
        return _torch_operands(op), (), "Tensor"
    signature = inspect.signature(op.reference)
    operands: list[Operand] = []
    attributes: list[Attribute] = []
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            default = None if p.default is REQUIRED else repr(p.default)
            attributes.append(Attribute(p.name, _type(p.annotation), default))
        else:
            star = "*" if p.kind is p.VAR_POSITIONAL else ""
            operands.append(Operand(star + p.name, _type(p.annotation)))
    if op.traits.pointwise and len(operands) == 2 and operands[1].type == "Tensor":
        operands[1] = Operand(operands[1].name, "Tensor | float")
    return tuple(operands), tuple(attributes), _type(signature.return_annotation)


def _is_ours(op: Op) -> bool:
    return inspect.isfunction(op.reference) and not op.reference.__module__.startswith("torch")


def _torch_operands(op: Op) -> tuple[Operand, ...]:
    """Torch's own functions have no signature to ask, or one with more than the op takes: see what it accepts."""
    one = torch.ones(1)
    try:
        op.reference(one)
        return (Operand("x", "Tensor"),)
    except TypeError:
        return (Operand("a", "Tensor"), Operand("b", "Tensor | float"))


def _type(annotation: Any) -> str:
    if annotation in (REQUIRED, Any):
        return "Tensor" if annotation is REQUIRED else "Any"
    text = annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else annotation
    return QUALIFIED.sub("", str(text))
