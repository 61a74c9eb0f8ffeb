"""What lowering asks of a target, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..passes.api import Pass
from ..runtime.artifact.schema import KernelLibrary, Plan
from .ir.program import Program


@dataclass(frozen=True)
class BuildOptions:
    isa: tuple[str, ...] = ("all",)
    """Instruction-set levels to build kernels for; ``all``, or ``native`` for the best that this machine runs."""
    jobs: int = 2
    """Compilers run at once."""
    invariant: bool = False
    """No result may depend on what else is in a step. The CPU's never do."""


@dataclass(frozen=True)
class Bundle:
    """A lowered program: what the artifact holds besides weights and graphs."""

    plan: Plan
    sources: dict[str, str]
    """Path in the artifact to generated or copied source text."""
    libraries: dict[str, Path]
    """Path in the artifact to the built file."""
    kernels: tuple[KernelLibrary, ...]
    tools: dict[str, str] = field(default_factory=dict)
    """Compilers by name, with their versions."""
    invariant: bool = False
    """Whether no result depends on what else is in a step."""
    notes: tuple[str, ...] = ()
    """What whoever compiled should know although nothing is wrong."""
    invents_weights: bool = False
    """Whether the engine's runtime makes random weights when it loads, so that none need be written."""


class Target(Protocol):
    """One kind of machine. Found by name through the entry point ``xllmc.targets``.

    A class with ``variants``, a tuple of names, is made with one of them: ``--target name:variant``.
    """

    name: str

    def passes(self) -> tuple[type[Pass], ...]:
        """The passes that only this target needs; with them a program comes to be what ``emit`` takes."""

    def emit(self, program: Program, options: BuildOptions, work: Path, progress: Callable[[str], None]) -> Bundle:
        """Kernels, built in ``work``, and the plan that launches them; XllmcError names an op no kernel claims."""
