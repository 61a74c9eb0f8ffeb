"""Which machine an engine runs on: the one that its target names."""

from .artifact.errors import ArtifactError, OptionError
from .backend import Backend
from .cpu import open_cpu
from .opening import Opening
from .weights import Weights


def open_backend(opening: Opening, isa: str | None, huge_pages: bool) -> tuple[Backend, Weights]:
    """The machine that the engine was compiled for, ready to run steps. ``isa``, ``huge_pages``: see ``Engine.load``.
    Raises ArtifactError, OptionError, DeviceError.
    """
    target = opening.manifest.target
    kind = target.partition(":")[0]
    if kind == "cpu":
        return open_cpu(opening, isa, huge_pages)
    if kind != "cuda":
        raise ArtifactError(
            f"{opening.root} is an engine for {target}, which this runtime cannot run; "
            "compile one with --target cpu or cuda"
        )
    for name, given in (("isa", isa is not None), ("huge_pages", huge_pages)):
        if given:
            raise OptionError(f"{name} is for engines of the CPU, and this one is for {target}; leave it out")
    try:
        from .cuda.backend import open_cuda
    except ImportError as problem:
        raise OptionError(
            f"an engine for {target} requires cuda-bindings ({problem}); pip install 'xllmc[cuda]'"
        ) from problem
    return open_cuda(opening)
