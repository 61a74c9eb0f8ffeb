"""The engine's tokenizer, chat template and generation defaults, each read when first asked for."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .artifact.errors import ArtifactError, OptionError
from .artifact.tokenizer_file import read_tokenizer
from .memory import return_freed
from .sampling import SamplingParams
from .token_pieces import TokenPieces

if TYPE_CHECKING:
    import jinja2
    import tokenizers

_DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Message = Mapping[str, Any]


class Tokenizer:
    """Text to token ids and back. ``directory`` holds the model's tokenizer files as Hugging Face names them."""

    def __init__(self, directory: Path, eos_token_ids: Sequence[int]) -> None:
        self.directory = directory
        self.eos_token_ids = frozenset(eos_token_ids)

    @property
    def present(self) -> bool:
        """Whether the engine has one; if not, it speaks token ids only."""
        return (self.directory / "tokenizer.json").is_file()

    def encode(self, text: str) -> list[int]:
        """The ids of a plain prompt, with the special tokens that the model wants at its start."""
        return self._tokenizer.encode(_unicode(text)).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def encode_chat(self, messages: Sequence[Message], **variables: Any) -> list[int]:
        """The ids of a conversation, up to where the model's answer starts."""
        return self._tokenizer.encode(_unicode(self.render_chat(messages, **variables)), add_special_tokens=False).ids

    def render_chat(self, messages: Sequence[Message], **variables: Any) -> str:
        """The chat template's text for ``messages`` (``role`` and ``content``); templates run in a sandbox.

        ``variables`` are given to the template (``tools``, ``enable_thinking``, ...). Raises OptionError when the model
        has no chat template, or the template refuses the messages.
        """
        import jinja2

        values = self._special_tokens | {"add_generation_prompt": True, "tools": None, "documents": None} | variables
        try:
            return self._chat_template.render(messages=list(messages), **values)
        except (jinja2.TemplateError, TypeError) as problem:
            raise OptionError(f"the model's chat template refuses these messages: {problem}") from problem

    def default_sampling(self, **overrides: Any) -> SamplingParams:
        """The model's generation defaults (``generation_config.json``), with ``overrides`` in their place.

        As in transformers, a model that does not say ``do_sample`` is decoded greedily.
        """
        name = "generation_config.json"
        config = self._json(name)
        defaults = {name: config[name] for name in _DEFAULTS if config.get(name) is not None}
        try:
            SamplingParams(**defaults)
        except OptionError as problem:
            raise ArtifactError(
                f"{self.directory / name}: {problem}; correct the model's and compile it again"
            ) from problem
        if not config.get("do_sample", False):
            defaults["temperature"] = 0.0
        return SamplingParams(**(defaults | overrides))

    @cached_property
    def pieces(self) -> TokenPieces:
        """What single tokens stand for."""
        return TokenPieces(self._tokenizer)

    @cached_property
    def _tokenizer(self) -> "tokenizers.Tokenizer":
        path = self.directory / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"this engine has no {path.name}: give token ids, or compile a model that has one")
        tokenizer = read_tokenizer(path)
        # Files keep the settings of their last use in training; prompts must come through whole.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # Parsing a vocabulary of 150 thousand leaves 60 MB of freed memory behind.
        return_freed()
        return tokenizer

    @cached_property
    def _chat_template(self) -> "jinja2.Template":
        import jinja2

        environment = _sandbox()
        try:
            return environment.from_string(self._template_text())
        except jinja2.TemplateSyntaxError as problem:
            raise ArtifactError(f"the engine's chat template is not valid jinja2: {problem}") from problem

    def _template_text(self) -> str:
        path = self.directory / "chat_template.jinja"
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except UnicodeDecodeError as problem:
                raise ArtifactError(f"{path} is damaged ({problem}); compile the engine again") from problem
        text = self._json("tokenizer_config.json").get("chat_template")
        if isinstance(text, list):
            named = {entry.get("name"): entry.get("template") for entry in text if isinstance(entry, dict)}
            text = named.get("default")
        if not isinstance(text, str):
            raise OptionError("this model has no chat template, as base models have none; give a plain prompt instead")
        return text

    @cached_property
    def _special_tokens(self) -> dict[str, Any]:
        config = self._json("tokenizer_config.json")
        found = {name: config.get(name) for name in _SPECIAL_TOKENS}
        return {
            name: token.get("content") if isinstance(token, dict) else token for name, token in found.items() if token
        }

    def _json(self, name: str) -> dict[str, Any]:
        path = self.directory / name
        try:
            data = json.loads(path.read_bytes()) if path.is_file() else {}
        except (ValueError, RecursionError) as problem:
            raise ArtifactError(f"{path} is damaged ({problem}); compile the engine again") from problem
        if not isinstance(data, dict):
            raise ArtifactError(f"{path} must hold a JSON object, got {type(data).__name__}; compile the engine again")
        return data


def _unicode(text: str) -> str:
    """``text``, if UTF-8 can write it; OptionError for lone surrogates, which is how Python passes on damaged UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise OptionError(
            f"a prompt must be valid Unicode, got {text[problem.start]!a} at character {problem.start}; "
            "give it in UTF-8"
        ) from problem
    return text


def _sandbox() -> "jinja2.Environment":
    """The environment that Hugging Face chat templates are written for."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
