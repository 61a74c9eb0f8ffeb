"""Every test of test_attention_invariant.py, with the adapter's IR instead of Triton's interpreter."""

from tests.codegen.triton.test_attention_invariant import *  # noqa: F403
