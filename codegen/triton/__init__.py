"""Kernels in Triton, compiled ahead of time: the accelerators' side of lowering."""
