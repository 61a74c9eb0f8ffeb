"""The CPU target: C++20 kernels over the headers in ``include``, one shared library for each instruction-set level."""
