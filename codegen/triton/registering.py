"""How providers are registered: ``@provides("rms_norm", "layer_norm")``."""

from collections.abc import Callable

from ...compiler.ops import OPS
from .kernel import TritonCall

Provider = Callable[[TritonCall], None]


def provides(*ops: str) -> Callable[[Provider], Provider]:
    """Register the decorated function as what lowers these ops for devices."""

    def register(provider: Provider) -> Provider:
        for name in ops:
            OPS[name].kernel("triton")(provider)
        return provider

    return register
