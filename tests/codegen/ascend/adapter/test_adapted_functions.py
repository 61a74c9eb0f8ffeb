"""Every test of tests/codegen/triton/test_functions.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_functions import *  # noqa: F403
