"""A Hugging Face model directory as named tensors, whether in one safetensors file or sharded."""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path

from .errors import CheckpointError
from .recipe import Tensor
from .safetensors_file import SafetensorsFile, TensorEntry

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated*.pth")


class Checkpoint:
    """Named tensors of a model directory, read through memory maps.

    Shards open when first asked for. Raises CheckpointError for pickle-only directories, missing or damaged shards
    and missing tensors.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, SafetensorsFile] = {}
        self._shard_of = self._find()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._shard_of)

    def __contains__(self, name: object) -> bool:
        return name in self._shard_of

    def entry(self, name: str) -> TensorEntry:
        """The tensor's dtype and shape, without reading it."""
        return self._file(name).entries[name]

    def read(self, name: str) -> Tensor:
        """The tensor as a read-only view of the file."""
        return self._file(name)[name]

    def _find(self) -> dict[str, str]:
        if not self.directory.is_dir():
            raise CheckpointError(
                f"{self.directory} is not a model directory; give one with config.json and safetensors"
            )
        if (self.directory / _INDEX).is_file():
            return self._read_index(self.directory / _INDEX)
        if (self.directory / _SINGLE).is_file():
            return dict.fromkeys(self._open(_SINGLE).entries, _SINGLE)
        if pickles := sorted(path.name for pattern in _PICKLES for path in self.directory.glob(pattern)):
            raise CheckpointError(
                f"{self.directory} holds its weights only as a pickle ({pickles[0]}), which could run any code; "
                "convert it to safetensors first (save_pretrained in transformers writes them)"
            )
        raise CheckpointError(f"{self.directory} has neither {_SINGLE} nor {_INDEX}; download the model's weights")

    def _read_index(self, path: Path) -> dict[str, str]:
        try:
            shards = json.loads(path.read_text())["weight_map"]
            valid = isinstance(shards, dict) and all(isinstance(shard, str) for shard in shards.values())
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
            raise CheckpointError(f"{path} cannot be read ({problem}); download it again") from problem
        if not valid:
            raise CheckpointError(f"{path} must map tensor names to file names in its weight_map; download it again")
        for shard in sorted(set(shards.values())):
            if Path(shard).name != shard:
                raise CheckpointError(f"{path} must name files of its own directory, got {shard}")
            if not (self.directory / shard).is_file():
                raise CheckpointError(f"{path} needs the shard {shard}, which is missing; download it")
        return shards

    def _open(self, shard: str) -> SafetensorsFile:
        if shard not in self._files:
            self._files[shard] = SafetensorsFile(self.directory / shard)
        return self._files[shard]

    def _file(self, name: str) -> SafetensorsFile:
        if name not in self._shard_of:
            raise CheckpointError(missing_tensor(name, self._shard_of, str(self.directory)))
        file = self._open(self._shard_of[name])
        if name not in file.entries:
            raise CheckpointError(
                f"{file.path} lacks the tensor {name}, which {_INDEX} places there; download both again"
            )
        return file


def missing_tensor(name: str, present: Iterable[str], where: str) -> str:
    """The message for a tensor that ``where`` lacks, with the nearest name that is there."""
    near = difflib.get_close_matches(name, list(present), n=1, cutoff=0.7)
    hint = f"the nearest name there is {near[0]}" if near else "check that the weights belong to this config.json"
    return f"{where} lacks the tensor {name}; {hint}"
