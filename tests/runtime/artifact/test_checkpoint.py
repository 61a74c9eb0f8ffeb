import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from xllmc.runtime.artifact.checkpoint import Checkpoint
from xllmc.runtime.artifact.errors import CheckpointError

Q = "model.layers.0.self_attn.q_proj.weight"


def sharded(directory: Path) -> Path:
    save_file({Q: np.ones((2, 2), np.float32)}, directory / "a.safetensors")
    save_file({"model.norm.weight": np.ones(2, np.float16)}, directory / "b.safetensors")
    index = {"weight_map": {Q: "a.safetensors", "model.norm.weight": "b.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def test_one_file_and_shards_read_alike(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    save_file({Q: np.ones((2, 2), np.float32)}, tmp_path / "one/model.safetensors")
    for directory in (tmp_path / "one", sharded(tmp_path)):
        checkpoint = Checkpoint(directory)
        assert Q in checkpoint
        assert checkpoint.entry(Q).shape == (2, 2)
        assert checkpoint.read(Q).values.tolist() == [[1, 1], [1, 1]]
    assert Checkpoint(tmp_path).read("model.norm.weight").dtype == "f16"


def test_a_missing_tensor_is_named_with_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"k_proj.weight; the nearest name there is {Q}"):
        Checkpoint(sharded(tmp_path)).read(Q.replace("q_proj", "k_proj"))
    with pytest.raises(CheckpointError, match="belong to this config"):
        Checkpoint(tmp_path).entry("zzz")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (sharded(tmp_path) / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"needs the shard b\.safetensors"):
        Checkpoint(tmp_path)


def test_an_index_at_odds_with_its_shard_is_refused(tmp_path: Path) -> None:
    save_file({"other": np.ones(2)}, sharded(tmp_path) / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors lacks the tensor model\.norm\.weight"):
        Checkpoint(tmp_path).read("model.norm.weight")


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../b"}}'])
def test_damaged_indices_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        Checkpoint(tmp_path)


def test_pickles_are_refused_unopened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"any")
    with pytest.raises(CheckpointError, match="only as a pickle"):
        Checkpoint(tmp_path)


def test_directories_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither"):
        Checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="not a model directory"):
        Checkpoint(tmp_path / "none")
