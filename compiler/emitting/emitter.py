"""What writes a program in one form (``codegen/onnx``, ``codegen/mlir``), and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ..ir.program import Program

ReadWeight = Callable[[str], torch.Tensor]
"""The value of a weight by name, of the type that the program has for it; evaluated anew with each call."""

Runner = Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]
"""Runs one step: inputs and states by name, as ``NAME.keys`` and ``NAME.values``, to results and ``next.`` states."""


@dataclass(frozen=True)
class Verified:
    """What was written, after the form's own verifier took it."""

    by: str
    """The verifier, with its version."""
    facts: Mapping[str, int]
    """Numbers that tell one output from another: how many operations there are."""


class Emitter(Protocol):
    name: str
    """What ``--emit`` takes."""
    suffix: str
    """Of the file written; others that belong to it have its name and another suffix on top."""
    engine: str
    """What runs the result in the check."""
    most_checked: int
    """Elements of weights up to which the result is run. A rule, so that nobody waits hours for a check."""

    def require(self) -> None:
        """OptionError where a package is missing, with the extra that brings it."""

    def write(self, program: Program, weight: ReadWeight, file: Path) -> Verified:
        """Write the forward function into ``file`` and files beside it. XllmcError where it cannot be."""

    def load(self, file: Path) -> Runner:
        """What runs a file that ``write`` wrote, of a float32 program."""
