"""Ascend NPUs as a compilation target: Triton kernels through the Ascend adapter, and a graph of torch_npu calls."""
