"""What installed packages bring: passes, targets and model families, found by entry point.

    [project.entry-points."xllmc.passes"]
    acme = "acme.passes"

An entry names a module, of which every pass and target defined there and every family counts, or one object, or a
tuple. xllmc's own are found the same way.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeGuard

from ...passes.api import Pass
from ...runtime.artifact.errors import OptionError
from ...runtime.artifact.version import xllmc_version
from ..target import Target

OWN = "xllmc"


@dataclass(frozen=True)
class Origin:
    """The distribution that something came with."""

    name: str
    version: str

    @property
    def plugin(self) -> bool:
        return self.name != OWN

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


OWN_ORIGIN = Origin(OWN, xllmc_version())


def installed_passes(plugins: bool = True) -> list[tuple[type[Pass], Origin]]:
    """Every installed pass class and where it came from, xllmc's own first; without ``plugins``, those alone."""
    passes: dict[type[Pass], Origin] = {}  # one pass may have two names in its module
    for found, origin in _installed("xllmc.passes", plugins):
        if _is_pass(found):
            passes.setdefault(found, origin)
    for entry in entry_points(group="xllmc.passes"):
        origin = _origin(entry)
        if origin not in passes.values() and (plugins or not origin.plugin):
            raise OptionError(f"plugin {origin} names {entry.value} for passes, which has none; decorate its classes")
    return list(passes.items())


def installed_targets(plugins: bool = True) -> dict[str, tuple[type[Target], Origin]]:
    """Target classes by name. OptionError where two bring the same name."""
    targets: dict[str, tuple[type[Target], Origin]] = {}
    for found, origin in _installed("xllmc.targets", plugins):
        if _is_target(found):
            if found.name in targets:
                raise OptionError(f"target {found.name} is brought by {targets[found.name][1]} and by {origin}")
            targets[found.name] = (found, origin)
    return targets


def installed_objects(group: str, kind: type, plugins: bool = True) -> list[tuple[Any, Origin]]:
    """Every object of ``kind`` that entries of ``group`` name."""
    return [(found, origin) for found, origin in _installed(group, plugins) if isinstance(found, kind)]


def _installed(group: str, plugins: bool) -> Iterator[tuple[Any, Origin]]:
    entries = sorted(entry_points(group=group), key=lambda e: (_origin(e).plugin, e.name, e.value))
    if not any(not _origin(e).plugin for e in entries):
        raise OptionError(f"xllmc's own entry points of {group} are missing; install xllmc again (make setup)")
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        origin = _origin(entry)
        if (origin.plugin and not plugins) or (entry.name, entry.value) in seen:
            continue
        seen.add((entry.name, entry.value))  # an editable install may be seen twice
        for found in _contents(entry, origin):
            yield found, origin


def _origin(entry: EntryPoint) -> Origin:
    assert entry.dist is not None
    return Origin(entry.dist.name, entry.dist.version)


def _contents(entry: EntryPoint, origin: Origin) -> Iterator[Any]:
    try:
        loaded = entry.load()
    except Exception as error:  # a plugin is foreign code: whatever its import raises is its fault, by name
        raise OptionError(
            f"plugin {origin} cannot be loaded: {entry.value}: {type(error).__name__}: {error}; "
            "repair or uninstall it, or compile with --no-plugins"
        ) from error
    if inspect.ismodule(loaded):
        values = vars(loaded).values()
        yield from (v for v in values if not inspect.isclass(v) or v.__module__ == loaded.__name__)
    elif isinstance(loaded, tuple | list):
        yield from loaded
    else:
        yield loaded


def _is_pass(found: Any) -> TypeGuard[type[Pass]]:
    return inspect.isclass(found) and issubclass(found, Pass) and hasattr(found, "name")


def _is_target(found: Any) -> TypeGuard[type[Target]]:
    return inspect.isclass(found) and hasattr(found, "passes") and hasattr(found, "emit")
