"""Every test of tests/codegen/triton/test_rotary.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_rotary import *  # noqa: F403
