"""New weights for a loaded engine: the recipes of its manifest, replayed on tensors named as on Hugging Face."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .artifact.checkpoint import Checkpoint, missing_tensor
from .artifact.dtypes import ITEM_BYTES, numpy_dtype
from .artifact.errors import CheckpointError, OptionError
from .artifact.recipe import Recipe, Tensor, evaluate
from .artifact.safetensors_file import tensor_bytes
from .artifact.schema import WeightEntry
from .memory import allocate
from .weights import Weights

WeightSource = Mapping[str, Any] | str | Path
"""Names to arrays (numpy of a float type, ml_dtypes' bfloat16, or ``Tensor``), or a Hugging Face model directory."""
_DTYPES = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_NAMED = 3


def replay(declared: Iterable[WeightEntry], current: Weights, source: WeightSource, version: int) -> Weights:
    """The weights that compiling ``source`` would give, byte for byte; ``current`` is left as it is.

    Everything is checked before anything is computed. Raises CheckpointError naming tensors that are missing, of
    the wrong shape or of a type that is not a float, and OptionError for a source that is neither.
    """
    entries = tuple(declared)
    recipes = {entry.name: Recipe.from_json(entry.recipe) for entry in entries if entry.recipe is not None}
    leaves = {leaf.attribute("name"): leaf for recipe in recipes.values() for leaf in recipe.sources()}
    read_source = _reader(source, leaves)

    def read(leaf: Recipe) -> Tensor:
        name = leaf.attribute("name")
        return read_source(name) if leaf.op == "source" else current.tensor(name)

    memory = allocate(current.memory.size)
    for entry in entries:
        place = current.entries[entry.name]
        if entry.name not in recipes:
            memory[place.start : place.stop] = current.memory[place.start : place.stop]
            continue
        packed = evaluate(recipes[entry.name], read)
        if (packed.dtype, tuple(packed.values.shape)) != (place.dtype, place.shape):
            raise CheckpointError(
                f"the recipe of {entry.name} must give {place.dtype}{list(place.shape)}, "
                f"got {packed.dtype}{list(packed.values.shape)}; compile the engine again"
            )
        memory[place.start : place.stop] = tensor_bytes(packed.values)
    return Weights(memory, current.entries, version)


def _reader(source: WeightSource, leaves: Mapping[str, Recipe]) -> Callable[[str], Tensor]:
    if isinstance(source, str | Path):
        checkpoint = Checkpoint(Path(source))
        names = _resolve(leaves, checkpoint.names, str(source))
        for name, leaf in leaves.items():
            entry = checkpoint.entry(names[name])
            _check(name, entry.shape, entry.dtype, leaf)
        return lambda name: checkpoint.read(names[name])
    if not isinstance(source, Mapping):
        raise OptionError(
            "new weights must be a mapping of names to arrays, or the path of a model directory, "
            f"got {type(source).__name__}"
        )
    names = _resolve(leaves, [name for name in source if isinstance(name, str)], "the update")
    tensors = {name: _as_tensor(name, source[given]) for name, given in names.items()}
    for name, leaf in leaves.items():
        _check(name, tensors[name].values.shape, tensors[name].dtype, leaf)
    return tensors.__getitem__


def _resolve(leaves: Iterable[str], given: Iterable[str], where: str) -> dict[str, str]:
    """By name of a leaf, the given name: the same one, or one with or without the base model's prefix.

    Other names (tied copies, buffers) are ignored.
    """
    wanted, present = dict.fromkeys(leaves), set(given)
    spare: dict[str, list[str]] = {}
    for name in sorted(present.difference(wanted)):
        spare.setdefault(name.partition(".")[2], []).append(name)
    resolved, missing = {}, []
    for name in wanted:
        bare = name.partition(".")[2]
        shorter = [bare] if bare in present and bare not in wanted else []
        found = [name] if name in present else spare.get(name, []) + shorter
        if len(found) > 1:
            raise CheckpointError(f"{where} must have one tensor for {name}, got {' and '.join(found)}; leave one out")
        if found:
            resolved[name] = found[0]
        else:
            missing.append(name)
    if missing:
        raise CheckpointError(f"{missing_tensor(missing[0], sorted(present), where)}{_more(missing)}")
    if len(set(resolved.values())) < len(resolved):
        twice = next(name for name in resolved.values() if list(resolved.values()).count(name) > 1)
        raise CheckpointError(f"{where} has one tensor {twice} for two of the model's; give both under their own names")
    return resolved


def _as_tensor(name: str, array: Any) -> Tensor:
    if isinstance(array, Tensor):
        known = isinstance(array.values, np.ndarray) and array.dtype in ITEM_BYTES
        if not known or array.values.dtype != numpy_dtype(array.dtype):
            raise CheckpointError(f"tensor {name} must hold a numpy array of {array.dtype}; convert it first")
        return array
    if not isinstance(array, np.ndarray) or array.dtype.name not in _DTYPES:
        kind = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
        raise CheckpointError(
            f"tensor {name} must be a numpy array of {', '.join(_DTYPES)}, got {kind}; convert it first"
        )
    dtype = _DTYPES[array.dtype.name]
    return Tensor(array.view(np.uint16) if dtype == "bf16" else array, dtype)


def _check(name: str, shape: tuple[int, ...], dtype: str, leaf: Recipe) -> None:
    if shape != leaf.attribute("shape"):
        raise CheckpointError(
            f"tensor {name} must have shape {list(leaf.attribute('shape'))}, got {list(shape)}; "
            "give weights of the model that was compiled"
        )
    if dtype not in _DTYPES.values():
        raise CheckpointError(f"tensor {name} must be of a float type, got {dtype}; dequantise it first")


def _more(names: list[str]) -> str:
    others = ", ".join(names[1:_NAMED])
    rest = len(names) - _NAMED
    return f" (also {others}{f' and {rest} more' if rest > 0 else ''})" if others else ""
