"""No test of a kernel on the interpreter lacks its twin here."""

import re
from pathlib import Path

TRITON = Path(__file__).parents[2] / "triton"
IMPORTED = re.compile(r"from tests\.codegen\.triton\.(\w+) import")


def interprets(name: str) -> bool:
    """Whether a module of tests/codegen/triton runs kernels by the interpreter, itself or by another it imports."""
    if name == "interpreted":
        return True
    return any(interprets(other) for other in IMPORTED.findall((TRITON / f"{name}.py").read_text()))


def test_every_test_of_a_kernel_is_run_by_the_adapter_too():
    names = {path.stem for path in TRITON.glob("test_*.py") if interprets(path.stem)}
    names -= {name for name in names if name.endswith("_compiled")}  # they build what others run
    twins = {path.stem.replace("test_adapted_", "test_") for path in Path(__file__).parent.glob("test_adapted_*.py")}
    assert names == twins
