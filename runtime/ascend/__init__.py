"""Running engines on Ascend NPUs, through torch_npu. Nothing else of the runtime imports this package, or torch."""
