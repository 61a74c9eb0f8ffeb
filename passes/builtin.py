"""The passes that xllmc brings for every target."""

from .authoring.base import Pass, pass_types
from .canonicalize import Canonicalize
from .fold_weights import FoldWeights
from .fuse_activation import FuseActivation
from .fuse_add_layer_norm import FuseAddLayerNorm
from .fuse_add_rms_norm import FuseAddRMSNorm
from .fuse_gated_linear import FuseGatedLinear
from .fuse_linears import FuseLinears
from .fuse_qkv_write import FuseQKVWrite
from .recognize_gelu import RecognizeGelu
from .recognize_rms_norm import RecognizeRMSNorm
from .recognize_rope import RecognizeRope
from .select_rows import SelectRows
from .widen_logits import WidenLogits

PASSES: tuple[type[Pass], ...] = pass_types(
    Canonicalize,
    FoldWeights,
    SelectRows,
    WidenLogits,
    RecognizeRMSNorm,
    RecognizeRope,
    RecognizeGelu,
    FuseGatedLinear,
    FuseActivation,
    FuseLinears,
    FuseAddRMSNorm,
    FuseAddLayerNorm,
    FuseQKVWrite,
)
"""In the order they run where before and after leave a choice."""
