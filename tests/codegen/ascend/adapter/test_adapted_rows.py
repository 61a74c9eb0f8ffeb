"""Every test of tests/codegen/triton/test_rows.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_rows import *  # noqa: F403
