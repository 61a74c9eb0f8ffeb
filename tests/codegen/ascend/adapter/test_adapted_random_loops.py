"""Every test of tests/codegen/triton/test_random_loops.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_random_loops import *  # noqa: F403
