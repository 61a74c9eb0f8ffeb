"""The built-in passes, in the order they run."""

from .api import Pass
from .canonicalize import Canonicalize
from .fold_weights import FoldWeights
from .fuse_activation import FuseActivation
from .fuse_add_norm import FuseAddNorm
from .fuse_gated_linear import FuseGatedLinear
from .fuse_linears import FuseLinears
from .fuse_qkv_write import FuseQKVWrite
from .recognize_gelu import RecognizeGelu
from .recognize_rms_norm import RecognizeRMSNorm
from .recognize_rope import RecognizeRope
from .select_rows import SelectRows
from .widen_logits import WidenLogits


def passes() -> tuple[Pass, ...]:
    return (
        Canonicalize(),
        FoldWeights(),
        SelectRows(),
        WidenLogits(),
        RecognizeRMSNorm(),
        RecognizeRope(),
        RecognizeGelu(),
        Canonicalize(),
        FuseGatedLinear(),
        FuseActivation(),
        FuseLinears(),
        FuseAddNorm(),
        FuseQKVWrite(),
        Canonicalize(),
    )
