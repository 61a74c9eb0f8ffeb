"""The seams through which transformers lets attention be replaced, and the opaque op that marks it in the trace.

``models.trace`` runs a model over T tokens as a batch of T sequences of one token each. No token can then see another
by accident: all mixing goes through the attention seam, where queries, keys and values arrive as [T, heads, 1, dim].
"""

from collections.abc import Iterable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from ..runtime.artifact.errors import CheckpointError

SEAM = "xllmc"
IGNORED = {"position_ids", "use_cache", "cache_position", "output_attentions", "output_hidden_states", "return_dict"}


@torch.library.custom_op("xllmc::attention", mutates_args=())
def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, scale: float, window: int, softcap: float
) -> torch.Tensor:
    """q, k, v: [T, heads, 1, dim]; result: [T, 1, heads, value_dim]. Only traced, never run."""
    raise RuntimeError("xllmc::attention marks attention in a trace; it does not compute")


@attention.register_fake
def _(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, scale: float, window: int, softcap: float
) -> torch.Tensor:
    return q.new_empty(q.shape[0], 1, q.shape[1], v.shape[3])


def _attention_seam(
    module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None, **options: Any
) -> tuple[torch.Tensor, None]:
    scaling = options.pop("scaling", None)
    mask = options.pop("attention_mask", mask)
    window = options.pop("sliding_window", None)
    if window is not None and window < 1:
        raise CheckpointError(f"sliding_window must be at least 1, or null for none, got {window}")
    softcap = options.pop("softcap", None)
    dropout = options.pop("dropout", 0.0)
    unknown = {k: v for k, v in options.items() if k not in IGNORED and v is not None and v is not False}
    if dropout or mask is not None or unknown or not getattr(module, "is_causal", True):
        raise CheckpointError(
            f"attention of {type(module).__name__} requires causal attention with scaling, sliding_window and softcap "
            f"at most; got dropout {dropout}, mask {mask is not None}, is_causal {getattr(module, 'is_causal', True)}, "
            f"options {sorted(unknown)}"
        )
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    layer = int(getattr(module, "layer_idx", -1))
    return torch.ops.xllmc.attention(q, k, v, layer, float(scale), int(window or 0), float(softcap or 0.0)), None


class Masks:
    """The masks that a model asked for while it was traced: plain causal ones, or local to so many positions."""

    def __init__(self) -> None:
        self.local_sizes: set[int] = set()

    def __call__(self, *args: Any, local_size: int | None = None, **options: Any) -> None:
        if local_size is not None:
            self.local_sizes.add(int(local_size))

    def require_windows(self, windows: Iterable[int], family: str) -> None:
        """Refuse a local mask that no attention was given as its window: one of chunks, say."""
        if missing := self.local_sizes - set(windows):
            raise CheckpointError(
                f"{family} masks attention locally (to {sorted(missing)} positions) without a sliding window, "
                "which is not supported yet"
            )


def register() -> Masks:
    """Make ``attn_implementation="xllmc"`` known to transformers; returns the log of the masks it will be asked for."""
    masks = Masks()
    AttentionInterface.register(SEAM, _attention_seam)
    AttentionMaskInterface.register(SEAM, masks)
    return masks
