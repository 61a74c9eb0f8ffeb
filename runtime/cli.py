"""The command line, ``xllmc``. A command's module is imported only when it is asked for."""

import io
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from .artifact.errors import OptionError, XllmcError
from .artifact.version import xllmc_version

_COMMANDS = {
    "generate": ("xllmc.runtime.generate_command", "generate_command", "Continue a prompt."),
    "serve": ("xllmc.runtime.server.command", "serve_command", "Serve an engine over HTTP, as OpenAI's API."),
    "inspect": ("xllmc.runtime.inspect_command", "inspect_command", "Show what an engine is made of."),
    "compile": (
        "xllmc.compiler.commands.compile_command",
        "compile_command",
        "Compile a Hugging Face model to an engine.",
    ),
    "demo": ("xllmc.compiler.commands.demo_command", "demo_command", "Compile the bundled model and let it write."),
    "diff": (
        "xllmc.compiler.commands.diff_command",
        "diff_command",
        "Show what differs between two engines or graphs.",
    ),
    "kernels-diff": (
        "xllmc.compiler.commands.kernels_diff_command",
        "kernels_diff_command",
        "Show which generated kernels of fixed tiny models changed.",
    ),
    "ops": ("xllmc.compiler.commands.ops_command", "ops_command", "Show the op set."),
    "passes": ("xllmc.compiler.commands.passes_command", "app", "List, show and test passes."),
    "opt": ("xllmc.compiler.commands.opt_command", "opt_command", "Run passes over a program in text form."),
    "explain": ("xllmc.compiler.commands.explain_command", "explain_command", "Show what passes did, where and why."),
    "bisect": (
        "xllmc.compiler.commands.bisect_command",
        "bisect_command",
        "Find the pass and site that change what a model computes.",
    ),
    "rebuild": ("xllmc.codegen.cpu.rebuild", "rebuild_command", "Build an engine's kernels again from its sources."),
    "calibrate": ("xllmc.bench.calibrate_command", "calibrate_command", "Measure this machine for the cost model."),
    "bench": ("xllmc.bench.cli", "app", "Measure."),
}
"""Name to module, what it offers (a function, or a Typer app), and the help line shown without importing it."""
_COMPILE_EXTRA = {"torch", "transformers"}
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]
"""Click's UsageError, which typer brings but does not export."""
_ERROR, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141


def main() -> None:
    """Run the command of ``sys.argv``; mistakes of the user's end in one line on stderr and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model may write any character, whatever the terminal's encoding.
        sys.stdout.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of ``xllmc`` with these arguments."""
    try:
        code = _app(arguments)(args=arguments or ["--help"], prog_name="xllmc", standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except XllmcError as problem:
        return _fail(str(problem))
    except _USAGE_ERROR as problem:
        return _fail(f"{problem.format_message()} (see xllmc --help)")
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.partition(".")[0] not in _COMPILE_EXTRA:
            raise
        return _fail(f"xllmc {arguments[0]} needs torch and transformers: pip install 'xllmc[compile]'")
    except BrokenPipeError:
        return _end_output()
    except SystemExit as ended:  # which is what click makes of a closed pipe
        if isinstance(ended.__context__, BrokenPipeError):
            return _end_output()
        raise
    except OSError as problem:  # a full disk, a directory that may not be written
        return _fail(f"{problem.strerror or problem}{f': {problem.filename}' if problem.filename else ''}")
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED


def _end_output() -> int:
    # Python would flush stdout once more at exit, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return _BROKEN_PIPE


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return _ERROR


def _app(arguments: list[str]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(_options)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module, attribute, summary) in _COMMANDS.items():
        if name != wanted:
            app.command(name, help=summary)(_not_loaded)
        elif isinstance(command := _load(name, module, attribute), typer.Typer):
            app.add_typer(command, name=name, help=summary)
        else:
            app.command(name)(command)
    return app


def _load(name: str, module: str, attribute: str) -> Any:
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as problem:
        if problem.name != module:
            raise
        raise OptionError(
            f"xllmc {name} needs {module}, which this installation lacks; install xllmc from source"
        ) from problem


def _not_loaded() -> None:
    """Stands in the list of commands for one that was not asked for."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"xllmc {xllmc_version()}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compile large language models once, then run them."""


if __name__ == "__main__":
    main()
