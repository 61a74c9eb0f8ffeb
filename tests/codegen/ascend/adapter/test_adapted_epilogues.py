"""Every test of tests/codegen/triton/test_epilogues.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_epilogues import *  # noqa: F403
