"""Options of passes: fields of their dataclasses, given as text on the command line or as values in a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ...passes.api import Pass
from ...runtime.artifact.errors import OptionError

PassOptions = Mapping[str, Mapping[str, Any]]
"""Pass name to option to value."""


def parse_settings(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``PASS.OPTION=VALUE`` each; the value is JSON, or else text. Dashes may stand for underscores of an option."""
    options: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, option = target.partition(".")
        if not (equals and dot and name and option):
            raise OptionError(f"--set takes PASS.OPTION=VALUE, got {setting!r}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        options.setdefault(name, {})[option.replace("-", "_")] = value
    return options


def configured(found: type[Pass], given: Mapping[str, Any]) -> Pass:
    """The pass with these options. OptionError for an unknown one, or a value of the wrong type."""
    hints = get_type_hints(found)
    known = [f.name for f in fields(found)]
    values = {}
    for option, value in given.items():
        if option not in known:
            raise OptionError(f"pass {found.name} has no option {option!r}; it has {', '.join(known) or 'none'}")
        try:
            values[option] = TypeAdapter(hints[option]).validate_json(json.dumps(value), strict=True)
        except (ValidationError, TypeError) as error:  # TypeError: what JSON cannot say, a date of TOML say
            fault = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise OptionError(f"option {option} of pass {found.name}: {fault}, got {value!r}") from error
    return found(**values)
