"""Tests of this folder run kernels by the adapter's IR, also tests that they take over from tests/codegen/triton."""

import sys
from collections.abc import Iterator

import pytest
from xllmc.codegen.ascend.target import MACHINES
from xllmc.codegen.triton.architecture import ARCHITECTURES

from tests.codegen.ascend.adapter import adapted
from tests.codegen.triton import checking, interpreted

FLOAT32 = 8e-6
"""Of sums in a plain loop, which is what MLIR makes of a product or reduction, relative to the largest result."""


@pytest.fixture(autouse=True, scope="module")
def through_the_adapter() -> Iterator[None]:
    """Before any fixture of a module: those that compute are made once for it."""
    original = interpreted.interpret
    with pytest.MonkeyPatch.context() as patch:
        for module in [m for name, m in sys.modules.items() if name.startswith("tests.codegen.triton.")]:
            if getattr(module, "interpret", None) is original:
                patch.setattr(module, "interpret", adapted.interpret)
        # Tiles are those of the NPU where a test names no machine, and a GPU's where it names an older one.
        patch.setattr(interpreted, "ARCHITECTURES", ARCHITECTURES | {"sm_90": MACHINES["910b"]})
        patch.setitem(checking.BOUNDS, "f32", FLOAT32)
        yield
