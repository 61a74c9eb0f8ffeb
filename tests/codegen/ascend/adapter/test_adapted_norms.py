"""Every test of tests/codegen/triton/test_norms.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_norms import *  # noqa: F403
