"""The passes of one compile: xllmc's, the target's and the plugins', configured and in order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...passes.api import Pass
from ...runtime.artifact.errors import OptionError
from ..target import Target
from .options import PassOptions, configured
from .order import in_order
from .plugins import Origin, installed_passes, installed_targets


@dataclass(frozen=True)
class PassSettings:
    """What a user says of passes."""

    options: PassOptions = field(default_factory=dict)
    disabled: tuple[str, ...] = ()
    plugins: bool = True
    """Whether passes of installed plugins take part."""


@dataclass(frozen=True)
class PassList:
    """Passes as they run, and where each came from."""

    passes: tuple[Pass, ...]
    origins: dict[str, Origin]
    """By pass name."""

    def named(self, names: Sequence[str]) -> tuple[Pass, ...]:
        """The named ones, in the order of ``names``; OptionError for an unknown one."""
        known = {p.name: p for p in self.passes}
        if unknown := [n for n in names if n not in known]:
            raise OptionError(f"there is no pass {unknown[0]!r}; known: {', '.join(known)}")
        return tuple(known[n] for n in names)


def target_named(name: str, plugins: bool = True) -> tuple[Target, Origin]:
    """The installed target of this name, ``cpu`` or ``cuda:sm_90``; OptionError where there is none."""
    targets = installed_targets(plugins)
    kind, _, variant = name.partition(":")
    if kind not in targets or name not in (known := target_names(kind, targets[kind][0])):
        every = [full for kind in sorted(targets) for full in target_names(kind, targets[kind][0])]
        raise OptionError(f"--target must be one of {', '.join(known if kind in targets else every)}, got {name!r}")
    made, origin = targets[kind]
    return (made(variant) if variant else made()), origin  # type: ignore[call-arg]


def target_names(name: str, target: type[Target]) -> list[str]:
    """What ``--target`` takes for it: its name, or that with each of its variants."""
    variants: tuple[str, ...] = getattr(target, "variants", ())
    return [f"{name}:{variant}" for variant in variants] or [name]


def pass_list(target: str = "cpu", settings: PassSettings | None = None) -> PassList:
    """OptionError for settings of passes that do not exist, and for passes that cannot be ordered."""
    settings = settings or PassSettings()
    found = list(_found(target, settings.plugins))
    names = [one.name for one, _ in found]
    for name in (*settings.options, *settings.disabled):
        if name not in names:
            raise OptionError(f"there is no pass {name!r} to configure; known: {', '.join(sorted(names))}")
    passes = [configured(one, settings.options.get(one.name, {})) for one, _ in found]
    ordered = [one for one in in_order(passes, dict(found)) if one.name not in settings.disabled]
    return PassList(tuple(ordered), {one.name: origin for one, origin in found})


def _found(target: str, plugins: bool) -> Iterator[tuple[type[Pass], Origin]]:
    yield from installed_passes(plugins)
    made, origin = target_named(target, plugins)
    for one in made.passes():
        yield one, origin
