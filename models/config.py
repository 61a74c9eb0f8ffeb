"""Reading a model directory's config.json with transformers, running no code of the model's own."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..runtime.artifact.errors import CheckpointError


def load_config(model_dir: Path) -> PretrainedConfig:
    """The configuration in ``model_dir/config.json``; CheckpointError where it is missing, broken or unknown."""
    path = model_dir / "config.json"
    if not path.is_file():
        raise CheckpointError(f"a model directory requires config.json, found none in {model_dir}")
    raw = read_json_object(path)
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise CheckpointError(
            f"unknown architecture: config.json must name a causal language model that transformers knows, "
            f"got model_type {family!r}; remote code is never run"
        )
    if raw.get("quantization_config"):
        raise CheckpointError(
            f"{path} declares quantization_config; quantised checkpoints are not supported yet: give the "
            "bf16, f16 or f32 checkpoint"
        )
    try:
        return AutoConfig.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, StrictDataclassError) as error:
        raise CheckpointError(f"{path} is not a valid {family} configuration: {first_line(error)}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError where it holds none."""
    try:
        value = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def first_line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return " ".join(text.split())[:300]
