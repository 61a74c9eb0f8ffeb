"""Tests of tests/codegen/triton/test_sampling.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_sampling import *  # noqa: F403

del test_kernels_compile_without_spills  # it makes GPU code
