"""Kernels of an engine: how often each is launched, what it costs, and the source it was compiled from."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...runtime.artifact.errors import ArtifactError
from ...runtime.artifact.schema import Manifest, Plan
from .steps import Costs

SOURCE_SUFFIXES = (".cpp", ".h", ".cu", ".py")


@dataclass(frozen=True)
class Kernel:
    name: str
    op: str
    """Of the first value it makes."""
    launches: dict[str, int]
    """By function."""
    origins: tuple[str, ...]
    """Modules it is launched for, layers joined (``model.layers.*.mlp``)."""
    costs: dict[str, tuple[float, float | None]]
    """By phase: predicted and measured microseconds of all launches of one step."""
    source: str
    """The generated function; empty where no source of the engine defines it."""
    library: str
    """The shipped header that defines what the source calls, if there is one."""


def kernels(plan: Plan, sources: Mapping[str, str], costs: Costs) -> tuple[Kernel, ...]:
    """In the order of their first launch."""
    launches: dict[str, Counter[str]] = {}
    origins: dict[str, list[str]] = {}
    for function in plan.functions:
        for launch in function.launches:
            launches.setdefault(launch.kernel, Counter())[function.name] += 1
            origins.setdefault(launch.kernel, []).append(launch.origin)
    found = []
    for name, counts in launches.items():
        source = next((s for text in sources.values() if (s := definition(text, name))), "")
        modules = dict.fromkeys(layers_joined(module_of(origin)) for origin in origins[name])
        found.append(
            Kernel(
                name=name,
                op=op_of_value(origins[name][0].rpartition(":")[2].partition("/")[0]),
                launches=dict(counts),
                origins=tuple(modules),
                costs={phase: by_kernel[name] for phase, by_kernel in costs.items() if name in by_kernel},
                source=source,
                library=library_of(source, sources),
            )
        )
    return tuple(found)


def read_sources(engine: Path, manifest: Manifest) -> dict[str, str]:
    """The kernel sources an engine ships, by their paths in it."""
    paths = [f.path for f in manifest.files if f.path.startswith("kernels/") and f.path.endswith(SOURCE_SUFFIXES)]
    try:
        return {path: (engine / path).read_text(encoding="utf-8") for path in paths}
    except (OSError, UnicodeDecodeError) as problem:
        raise ArtifactError(
            f"the kernel sources of {engine} cannot be read ({problem}); copy or compile it again"
        ) from problem


def definition(text: str, name: str) -> str:
    """The function ``name`` in C++ text, with the comment above it, or all of a device kernel's own Python text; empty
    where it is not defined there.
    """
    if f"\ndef {name}(" in text:
        return text.strip()
    start = re.search(rf"^(?://[^\n]*\n)*[^\n/]*\b{re.escape(name)}\([^;]*?\{{$", text, re.MULTILINE)
    if not start:
        return ""
    end = re.compile(r"^\}", re.MULTILINE).search(text, start.end())
    return text[start.start() : end.end() if end else len(text)].strip()


def library_of(source: str, sources: Mapping[str, str]) -> str:
    """The path of the header that defines a function template which ``source`` calls."""
    body = source.partition("{")[2]
    for called in re.findall(r"\b([a-z_]\w*)(?:<[^;{}]*>)?\(", body):
        declared = re.compile(rf"^(?:inline |static )*void {called}\(", re.MULTILINE)
        for path, text in sources.items():
            if path.endswith(".h") and declared.search(text):
                return path
    return ""


def module_of(origin: str) -> str:
    """Of ``module:value``, or ``module:value/part``; a value of no module stands for itself."""
    return origin.rpartition(":")[0] or origin


def layers_joined(path: str) -> str:
    """``model.layers.3.mlp`` as ``model.layers.*.mlp``: what layers have in common."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", path)


def op_of_value(name: str) -> str:
    """The op that a value was named for: ``linear_48`` and ``add_rms_norm.1`` without their numbers."""
    return re.sub(r"(_\d+)?(\.\d+)?$", "", name)
