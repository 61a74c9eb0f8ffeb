"""Which room may import which, checked on the source text: inside functions and by name in a string too."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.sources import ROOMS, ROOT, files

RULES: dict[str, tuple[str, ...]] = {
    "compiler": ("compiler", "passes.api", "runtime.artifact"),
    "compiler.commands": ("compiler", "passes", "codegen", "models", "runtime"),
    "compiler.cost": ("compiler", "runtime"),
    "compiler.driver": ("compiler", "models", "runtime.artifact", "runtime.machine"),
    "compiler.ir": ("compiler.ir", "runtime.artifact"),
    "compiler.kernels_diff": ("compiler", "codegen", "models", "runtime.artifact"),
    "compiler.pipeline.replay": ("compiler", "models", "passes.api", "runtime.artifact"),
    "compiler.ops": ("compiler.ops", "compiler.ir", "runtime.artifact"),
    "models": ("models", "compiler.ir", "compiler.ops", "runtime.artifact"),
    "passes": (
        "passes",
        "compiler.ir",
        "compiler.ops",
        "compiler.cost",
        "compiler.target",
        "runtime.artifact",
    ),
    "codegen": (
        "codegen",
        "compiler.ir",
        "compiler.ops",
        "compiler.cost",
        "compiler.emitting.emitter",
        "compiler.memory",
        "compiler.target",
        "passes",
        "runtime.artifact",
    ),
    "codegen.brought": ("codegen", "compiler.check", "compiler.ir", "compiler.ops", "runtime.artifact"),
    "codegen.cpu.kernel_check": ("codegen", "compiler.check", "compiler.ir", "compiler.ops", "runtime.artifact"),
    "codegen.triton.kernel_check": ("codegen", "compiler.check", "compiler.ir", "compiler.ops", "runtime.artifact"),
    "codegen.cpu.kernel_run": ("codegen", "runtime"),
    "runtime": ("runtime",),
    "runtime.artifact": ("runtime.artifact",),
    "bench": ROOMS,
}
"""Package or module to what it may import of ours. The longest name that fits a module rules it."""

BY_NAME: dict[str, tuple[str, ...]] = {
    "compiler.pipeline.plugins": ("passes",),
    "runtime.cli": ("compiler.commands", "codegen.cpu.rebuild", "bench.cli", "bench.calibrate_command"),
}
"""What a module may further name in a string, to import it on demand: commands that a serving machine may lack."""

OURS = re.compile(rf"xllmc\.({'|'.join(ROOMS)})(\.\w+)*")
RUNTIME_REQUIRES = {
    *("numpy", "safetensors", "tokenizers", "jinja2", "pydantic", "typer", "click", "rich"),
    *("fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic_settings", "pydantic_core"),
    "cuda",  # cuda.bindings, of an extra: only runtime.cuda has it, which only engines for CUDA import
}
RUNTIME_EXTRAS = {"runtime.ascend": {"torch"}}
"""What a package of the runtime that nothing else of it imports may require besides."""


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imports(path: Path, source: str) -> Iterator[tuple[str, bool]]:
    """(Absolute module name, is named in a string) of all that a file imports or could import by such a string."""
    package = module_name(path) if path.stem == "__init__" else module_name(path.parent)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, False
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(["xllmc", *parents, *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                ours = inner.startswith("xllmc.") and exists(inner.removeprefix("xllmc."))
                yield inner if ours else base, False
        elif isinstance(node, ast.Constant) and OURS.fullmatch(str(node.value)):
            yield str(node.value), True


def broken_rules(path: Path, source: str) -> list[str]:
    module = module_name(path)
    rule = max((name for name in RULES if within(module, (name,))), key=len)
    extras = (names for package, names in RUNTIME_EXTRAS.items() if within(module, (package,)))
    allowed = RUNTIME_REQUIRES.union(sys.stdlib_module_names, *extras)
    broken = []
    for name, in_string in imports(path, source):
        root = name.split(".")[0]
        if name.startswith("xllmc."):
            inner = name.removeprefix("xllmc.")
            if not within(inner, RULES[rule] + (BY_NAME.get(module, ()) if in_string else ())):
                broken.append(f"{path} imports {name}")
        elif root in (*ROOMS, "xllmc"):
            broken.append(f"{path} imports {name}: write xllmc.<room>, or the module would be loaded twice")
        elif rule.startswith("runtime") and root not in allowed:
            broken.append(f"{path} imports {name}, which the runtime does not require")
    return broken


def test_rooms_import_only_what_they_may():
    broken = {
        line: None for path in files(".py", folders=ROOMS) for line in broken_rules(path, (ROOT / path).read_text())
    }
    assert not broken, "\n".join(sorted(broken))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("runtime/engine.py", "def f():\n    import torch"),
        ("runtime/engine.py", "from xllmc.compiler import driver"),
        ("runtime/cli.py", "import xllmc.compiler.driver"),
        ("runtime/engine.py", "import_module('xllmc.compiler.commands.compile_command')"),
        ("runtime/artifact/schema.py", "from ..engine import Engine"),
        ("compiler/ir/program.py", "from .. import ops"),
        ("compiler/pipeline/run.py", "from xllmc.passes.authoring.matcher import match"),
        ("models/trace.py", "import runtime.artifact.recipe"),
        ("passes/rope.py", "from xllmc.codegen.cpu import target"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str):
    assert len(broken_rules(Path(path), source)) == 1


def test_the_command_line_may_name_build_commands():
    named = "COMMANDS = ('xllmc.compiler.commands.compile_command', 'compile_command')"
    assert broken_rules(Path("runtime/cli.py"), named) == []
