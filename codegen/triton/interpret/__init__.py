"""Running device kernels where there is no device: Triton's interpreter, in a process of its own."""
