"""A program as torch code over torch_npu's operators: ``lower.graph_module`` gives the text of a module."""
