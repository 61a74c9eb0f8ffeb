"""Every test of tests/codegen/triton/test_matmul.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_matmul import *  # noqa: F403
