"""What a user says of passes, on the command line and in a file.

    [passes]
    plugins = false
    disable = ["fuse-linears"]

    [passes.acme-softcap]
    smallest = 3

The command line comes after the file.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...runtime.artifact.errors import OptionError
from .listing import PassSettings
from .options import parse_settings


def pass_settings(
    settings: Sequence[str] = (), disable: Sequence[str] = (), plugins: bool = True, config: Path | None = None
) -> PassSettings:
    """The settings of ``--set``, ``--disable-pass``, ``--no-plugins`` and ``--config`` together; OptionError."""
    file = _read(config) if config is not None else {}
    in_file = file.pop("plugins", True)
    disabled = file.pop("disable", [])
    if not isinstance(in_file, bool):
        raise OptionError(f"{config}: passes.plugins must be true or false, got {in_file!r}")
    if not isinstance(disabled, list) or not all(isinstance(n, str) for n in disabled):
        raise OptionError(f"{config}: passes.disable must be a list of names, got {disabled!r}")
    options: dict[str, dict[str, Any]] = {}
    for name, table in file.items():
        if not isinstance(table, Mapping):
            raise OptionError(f"{config}: [passes.{name}] must be a table of the pass's options, got {table!r}")
        options[name] = {option.replace("-", "_"): value for option, value in table.items()}
    for name, given in parse_settings(settings).items():
        options.setdefault(name, {}).update(given)
    return PassSettings(options, (*disabled, *disable), plugins and in_file)


def _read(config: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(config.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"--config {config} cannot be read as TOML: {error}") from error
    if unknown := set(data) - {"passes"}:
        raise OptionError(f"{config}: unknown {', '.join(sorted(unknown))}; a configuration has the table [passes]")
    passes = data.get("passes", {})
    if not isinstance(passes, dict):
        raise OptionError(f"{config}: passes must be a table, got {passes!r}")
    return passes
