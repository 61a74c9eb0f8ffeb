"""Tests of tests/codegen/triton/test_attention.py, with the adapter's IR instead of Triton's interpreter.

Those that make kernels for every example they draw are left out: they take minutes.
"""

from tests.codegen.triton.test_attention import *  # noqa: F403

del test_any_step, test_any_tree
