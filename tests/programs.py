"""Small programs written as text, for tests of passes and codegen."""

from collections.abc import Sequence

from xllmc.compiler.ir.dims import Dim
from xllmc.compiler.ir.parse import parse_program
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.text import print_function
from xllmc.compiler.ir.types import TensorType, TupleType
from xllmc.compiler.ir.verify import verify
from xllmc.compiler.ops import OPS
from xllmc.compiler.pipeline.run import PassReport, run_pass
from xllmc.passes.api import Pass

FACTS = (
    '{"architecture":"Test","family":"test","vocab_size":64,"hidden_size":16,"layers":1,"max_context":64,'
    '"dtype":"f32","eos_token_ids":[],"parameters":0}'
)


def program(function: str, weights: Sequence[str] = (), dtype: str = "f32") -> Program:
    """A verified program of one function. ``weights``: ``name [sizes]`` each, of ``dtype``, from the checkpoint."""
    lines = [f"program canonical {FACTS}", "group 0 window=none"]
    for weight in weights:
        name, _, sizes = weight.partition(" ")
        source = f'{{"op":"source","dtype":"{dtype}","name":"{name}","shape":{sizes}}}'
        lines.append(f"weight @{name}: {dtype}{sizes} rows = {source}")
    made = parse_program("\n".join([*lines, function]), OPS)
    verify(made)
    return made


def statements(made: Program) -> list[str]:
    """The lines of the forward function's body, without module paths."""
    return [line.split("//")[0].strip() for line in print_function(made.forward).splitlines()[1:-1]]


def after(one: Pass, before: Program) -> tuple[list[str], PassReport]:
    """What the pass makes of the program: its statements and the report."""
    changed, report = run_pass(before, one)
    return statements(changed), report


def symbols_of(made: Program) -> set[str]:
    """The symbols that occur in the types of tensors."""
    found: set[str] = set()
    for function in made.functions.values():
        for node in function.graph.nodes:
            kind = node.meta.get("type")
            for item in kind.items if isinstance(kind, TupleType) else (kind,):
                if isinstance(item, TensorType):
                    found.update(name for size in item.shape if isinstance(size, Dim) for name in size.symbols)
    return found
