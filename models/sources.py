"""Where a model's tensors come from: the head of every weight recipe, in the names of the checkpoint's files.

transformers renames checkpoint tensors as it loads them. The same mapping, asked for here, says which tensor of the
file a parameter is, so that recipes speak the names that a user's checkpoint, and a trainer's update, have.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from ..runtime.artifact.errors import CheckpointError


def aliases(model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
    """Every name of each parameter and buffer: tied ones share a tuple."""
    names: dict[int, list[str]] = {}
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        names.setdefault(id(tensor), []).append(name)
    return {name: tuple(group) for group in names.values() for name in group}


@dataclass(frozen=True)
class SourceNames:
    """How a checkpoint's tensors and a model's parameters belong together."""

    names: dict[str, str]
    """Parameter name to the checkpoint tensor it is loaded from; parameters that no file has are absent."""
    ties: tuple[tuple[str, str], ...]
    """Pairs of checkpoint tensors that the model has as one, and that must therefore be equal."""
    unread: tuple[str, ...]
    """Tensors of the checkpoint that the model has no place for."""


def source_names(model: PreTrainedModel, available: Iterable[str] | None) -> SourceNames:
    """``available``: the checkpoint's tensors; None (no checkpoint: random weights) takes the model's own names."""
    names = aliases(model)
    if available is None:
        return SourceNames({name: group[0] for name, group in names.items()}, (), ())
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state = model.state_dict()
    expected = model._keys_to_ignore_on_load_unexpected or ()
    found: dict[str, str] = {}
    ties: list[tuple[str, str]] = []
    unread: list[str] = []
    for key in available:
        target, converter = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
        if converter is not None:
            raise CheckpointError(
                f"tensor {key} is merged on loading ({converter} to {target}); this conversion of "
                f"{model.config.model_type} is not supported yet"
            )
        if target not in names and not any(re.search(pattern, target) for pattern in expected):
            unread.append(key)
        for alias in names.get(target, ()):
            if found.setdefault(alias, key) != key:
                ties.append((found[alias], key))
    return SourceNames(found, tuple(dict.fromkeys(ties)), tuple(unread))
