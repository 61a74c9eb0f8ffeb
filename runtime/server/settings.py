"""What ``xllmc serve`` can be told: by flags, environment variables and one file, in this order of precedence."""

import json
import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ..artifact.errors import OptionError
from ..checks import INT32_MAX
from ..options import Preemption, SchedulingOptions

ENV_PREFIX = "XLLMC_SERVE_"
CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"
Names = Annotated[tuple[str, ...], NoDecode]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ServeSettings(BaseSettings):
    """Every setting of the server. The flag of ``a_b`` is ``--a-b``, its variable ``XLLMC_SERVE_A_B``."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    engine: Path
    """An engine directory."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0: any that is free."""
    model_name: Names = ()
    """What clients call the model; may be given often. Default: the engine directory's name without its ending."""
    api_key: Secrets = ()
    """A key that clients must send (Authorization: Bearer ...); may be given often. Others see a flag in the list of
    processes: prefer the file or the environment."""
    api_key_file: Path | None = None
    """A file of such keys, one a line; lines that start with # are comments."""
    open_metrics: bool = False
    """Give /metrics without a key too."""
    max_body_bytes: Positive = 8 << 20
    """Larger requests are refused (413)."""
    max_connections: Positive = 1024
    """Open connections at once; more are refused (503)."""
    max_samples: Positive = 2048
    """Samples (prompts times n) that one request may ask for."""
    idle_timeout: Seconds = 75.0
    """Seconds a connection may take to send a request, may read nothing of an answer, and may stay open without
    either."""
    request_timeout: Seconds | None = None
    """Seconds after which a request that is not done ends with an error (408). Default: none."""
    drain_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """After SIGTERM: seconds for accepted requests to be finished in."""
    sampling_defaults: Literal["model", "openai"] = "model"
    """Where a request does not say how to sample: as the model's generation_config.json says, or as OpenAI's documents
    say (temperature 1, and nothing else). A model whose file asks for no sampling gets temperature 1 either way."""
    log_format: Literal["auto", "json", "human"] = "auto"
    """JSON lines, or lines for people; auto: the latter on a terminal."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, on standard error."""
    trace: Path | None = None
    """Write a trace of every step, kernel and request to this file (for Perfetto)."""

    threads: Positive | None = None
    """Threads of the kernels. Default: all this process may use."""
    max_tokens: Positive = 512
    """Tokens in one step at most."""
    max_rows: Positive = 64
    """Rows of logits in one step at most."""
    max_sequences: Positive = 64
    """Sequences in one step at most."""
    kv_tokens: Positive | None = None
    """Tokens that the key-value memory holds. Default: what half of the free memory holds."""
    isa: str | None = None
    """An instruction-set level below the best."""
    huge_pages: bool = False
    """Copy the weights to huge pages."""

    prefix_cache: bool = True
    """Keep the states of finished sequences for requests that start alike."""
    ttft: Seconds | None = None
    """Seconds that a request should wait for its first token at most."""
    tpot: Seconds | None = None
    """Seconds between two tokens of a sequence at most."""
    preemption: Preemption = "auto"
    """What happens to the states of a sequence that must make room: auto, recompute or swap."""
    swap_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens whose states the host's other memory may hold."""
    max_waiting: Positive = 4096
    """Requests that may wait; more are refused (429)."""
    max_waiting_tokens: Positive = 1_000_000
    """Tokens of the prompts that may wait; more are refused (429)."""
    max_priority: Annotated[int, Field(ge=0, le=INT32_MAX)] = 0
    """The highest priority that requests may ask for; higher ones are refused (400). At 0, they may only let others go
    first."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is made with: ``load_settings`` puts the sources together, so that errors can say which."""
        return (init_settings,)

    @field_validator("model_name", "api_key", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """A variable holds several values between commas."""
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value

    @property
    def names(self) -> tuple[str, ...]:
        """What the model is called; the first is its proper name."""
        return self.model_name or (self.engine.resolve().name.removesuffix(".engine"),)

    def keys(self) -> tuple[str, ...]:
        """All API keys. Raises OptionError for a file that cannot be read or holds none."""
        given = tuple(key.get_secret_value() for key in self.api_key)
        if self.api_key_file is not None:
            given += _keys_in(self.api_key_file)
        if not all(key and key.isascii() and key.isprintable() and " " not in key for key in given):
            raise OptionError("API keys must be of printable ASCII without spaces, as they travel in an HTTP header")
        return given

    def load_options(self) -> dict[str, Any]:
        """The arguments of ``Engine.load``."""
        names = ("threads", "max_tokens", "max_rows", "max_sequences", "kv_tokens", "isa", "huge_pages")
        return {name: getattr(self, name) for name in names} | {"scheduling": self.scheduling()}

    def scheduling(self) -> SchedulingOptions:
        """How requests share the engine. Raises OptionError for settings at odds with each other."""
        return SchedulingOptions(
            prefix_cache=self.prefix_cache,
            ttft=self.ttft,
            tpot=self.tpot,
            preemption=self.preemption,
            swap_tokens=self.swap_tokens,
            max_waiting=self.max_waiting,
            max_waiting_tokens=self.max_waiting_tokens,
        )

    def shown(self) -> dict[str, Any]:
        """As JSON values, the keys hidden."""
        return self.model_dump(mode="json")


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> ServeSettings:
    """The settings from ``flags`` (those given), the environment and the file ``config`` (TOML, or JSON by its ending;
    default what XLLMC_SERVE_CONFIG names). Raises OptionError naming the setting, and where it was given.
    """
    environment = _environment()
    path = environment.pop(CONFIG_VARIABLE, None)
    file = config or (Path(path) if path else None)
    in_file = _read(file) if file else {}
    try:
        settings = ServeSettings(**(in_file | EnvSettingsSource(ServeSettings)() | dict(flags)))
    except ValidationError as problem:
        raise OptionError(_described(problem, flags, environment, file)) from problem
    settings.scheduling()
    return settings


def _environment() -> dict[str, str]:
    """The variables that are meant for the server."""
    found = {name: value for name, value in os.environ.items() if name.upper().startswith(ENV_PREFIX)}
    known = {CONFIG_VARIABLE, *(f"{ENV_PREFIX}{name.upper()}" for name in ServeSettings.model_fields)}
    for name in found:
        if name not in known:
            raise OptionError(f"{name} names no setting{_nearest(name, known)}; unset it, or see xllmc serve --help")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as problem:
        raise OptionError(f"the configuration {path} cannot be read: {problem.strerror or problem}") from problem
    except (ValueError, RecursionError) as problem:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise OptionError(f"the configuration {path} is no valid {kind}: {problem}") from problem
    if not isinstance(data, dict):
        raise OptionError(f"the configuration {path} must hold names and values, got {type(data).__name__}")
    for name in data:
        if name not in ServeSettings.model_fields:
            near = _nearest(name, set(ServeSettings.model_fields))
            raise OptionError(f"{name!r} in {path} names no setting{near}; see xllmc serve --help")
    return data


def _nearest(name: str, known: set[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _described(
    problem: ValidationError, flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None
) -> str:
    """The first mistake, in one line."""
    first = problem.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "the configuration"
    if first["type"] == "missing":
        return f"{name} is missing; name an engine directory: xllmc serve ENGINE"
    variable = f"{ENV_PREFIX}{name.upper()}"
    in_file_or_environment = variable if variable in environment else str(file)
    where = f"--{name.replace('_', '-')}" if name in flags else in_file_or_environment
    said = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    shown = "" if name.startswith("api_key") else f", got {first['input']!r}"
    return f"{name} {said}{shown} (from {where}); see xllmc serve --help"


def _keys_in(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionError(f"the file of API keys {path} cannot be read: {problem}") from problem
    keys = tuple(stripped for line in lines if (stripped := line.strip()) and not stripped.startswith("#"))
    if not keys:
        raise OptionError(f"the file of API keys {path} holds none; write one a line, or leave it out")
    return keys
