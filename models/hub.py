"""Finding a model: a directory, or a hub id where a hub can be reached."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ..runtime.artifact.errors import CheckpointError
from .config import first_line

NEEDED = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model")
"""Never pickles, never code."""


def resolve_model(model: str) -> Path:
    """The directory of ``model``; a hub id (``owner/name``) is downloaded, or found in the local cache."""
    path = Path(model)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{model} is a file; give the directory that holds config.json and safetensors")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        raise CheckpointError(f"no model directory {model}; give a directory, or a hub id such as owner/name")
    try:
        return Path(snapshot_download(model, allow_patterns=list(NEEDED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise CheckpointError(
            f"{model} is no directory here, and no hub can be reached for it ({first_line(error)[:120]}); "
            "download it elsewhere and give its directory"
        ) from error
