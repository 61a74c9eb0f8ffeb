"""``xllmc serve``: one flag for every setting."""

import gc
import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from .logs import set_up_logs
from .settings import ServeSettings, load_settings


def _serve(engine: Path | None, config: Path | None, print_config: bool, **flags: Any) -> None:
    """Serve an engine over HTTP, with OpenAI's endpoints.

    Every option can also be given in the environment (--max-rows as XLLMC_SERVE_MAX_ROWS) and in a file of names and
    values (max_rows = 64). Flags go before the environment, and the environment before the file.
    """
    given = {name: value for name, value in {"engine": engine, **flags}.items() if value not in (None, [], ())}
    settings = load_settings(given, config)
    if print_config:
        print(json.dumps(settings.shown(), indent=1))
        return
    set_up_logs(settings.log_format, settings.log_level)
    with _uncollected() as collect:
        # The engine loads while the web framework, which takes as long, is imported.
        from .startup import begin_load, listen

        listener = listen(settings.host, settings.port)
        loading = begin_load(settings)
        from .process import Process

        Process(settings, listener, loading).run(on_ready=collect)


@contextmanager
def _uncollected() -> Iterator[Callable[[], None]]:
    """No garbage is looked for until the block ends, or calls what it is given: what is there by then stays for good,
    and looking through it would only take time.
    """

    def collect() -> None:
        gc.freeze()
        gc.enable()

    gc.disable()
    try:
        yield collect
    finally:
        gc.unfreeze()
        gc.enable()


def _flag_type(annotation: Any) -> Any:
    """What typer makes of a flag for a setting of this type; the rest of the checks are the setting's own."""
    text = str(annotation)
    if text.startswith("tuple"):
        return list[str] | None
    kinds = {"bool": bool, "Path": Path, "float": float, "int": int}
    return next((kind for name, kind in kinds.items() if re.search(rf"\b{name}\b", text)), str) | None


def _help(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    choices = f" ({', '.join(get_args(field.annotation))})" if get_origin(field.annotation) is Literal else ""
    default = "" if field.default in (None, ()) or "efault" in text else f" [default: {field.default}]".lower()
    return f"{text}{choices}{default}"


def _command() -> Callable[..., None]:
    """``_serve`` with a parameter for every setting, as typer reads them."""
    config = typer.Option(help="A file of settings: TOML, or JSON if it is named .json. [env: XLLMC_SERVE_CONFIG]")
    shown = typer.Option("--print-config", help="Print the settings as JSON, keys hidden, and end.")
    kinds: dict[str, Any] = {
        "engine": Annotated[Path | None, typer.Argument(help="An engine directory.")],
        "config": Annotated[Path | None, config],
        "print_config": Annotated[bool, shown],
    }
    for name, field in ServeSettings.model_fields.items():
        if name not in kinds:
            kinds[name] = Annotated[_flag_type(field.annotation), typer.Option(help=_help(field))]

    def command(**arguments: Any) -> None:
        _serve(**arguments)

    command.__doc__ = _serve.__doc__
    command.__annotations__ = kinds
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=False if name == "print_config" else None
            )
            for name, kind in kinds.items()
        ]
    )
    return command


serve_command = _command()
