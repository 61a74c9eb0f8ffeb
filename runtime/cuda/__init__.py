"""NVIDIA GPUs behind an engine, over the driver API; imported only for engines that were compiled for them."""
