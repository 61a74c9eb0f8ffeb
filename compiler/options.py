"""What a compile can be asked for."""

from dataclasses import dataclass, field
from typing import get_args

from ..runtime.artifact.errors import OptionError
from .pipeline.listing import PassSettings
from .pipeline.run import Verification

DTYPES = {"bf16": "bf16", "fp32": "f32", "fp16": "f16"}


@dataclass(frozen=True)
class CompileOptions:
    target: str = "cpu"
    dtype: str = "bf16"
    """Of weights and activations: ``bf16``, ``fp32``, or for devices ``fp16``."""
    max_context: int | None = None
    """Positions a sequence may have; None: the model's own limit."""
    isa: tuple[str, ...] = ("all",)
    """Instruction-set levels to build kernels for: their names, ``all`` or ``native``."""
    random_weights: int | None = None
    """Seed: invent weights instead of reading a checkpoint."""
    jobs: int = 2
    """C++ compilers run at once."""
    batch_invariant: bool = False
    """No result may depend on what else is in a step, at some cost of speed. The CPU's never do."""
    skip_failed_pass: bool = False
    """Leave a pass out that fails its checks, instead of stopping."""
    passes: PassSettings = field(default_factory=PassSettings)
    verification: Verification = "numeric"
    """What every pass's result must stand."""
    allow_missed: bool = False
    """Go on where a pass matches fewer sites than the model's family declares."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise OptionError(f"--dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.verification not in get_args(Verification):
            known = ", ".join(get_args(Verification))
            raise OptionError(f"--verify must be one of {known}, got {self.verification!r}")
        if self.max_context is not None and self.max_context < 2:
            raise OptionError(f"--max-context must be at least 2, a prompt and an answer; got {self.max_context}")
        if self.random_weights is not None and self.random_weights < 0:
            raise OptionError(f"--random-weights takes a seed of 0 or more, got {self.random_weights}")
        if self.target != "cpu" and self.isa != ("all",):
            raise OptionError(f"--isa is for --target cpu, got --target {self.target}; leave it out")
        if self.jobs < 1:
            raise OptionError(f"--jobs must be at least 1, got {self.jobs}")
