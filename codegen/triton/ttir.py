"""A Triton function as Triton's own IR (TTIR), made without a GPU: what the Ascend adapter reads."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from ...runtime.artifact.errors import OptionError, XllmcError

_CAPABILITY = 90
"""TTIR names no machine, but Triton's front end wants to know one."""


def import_triton() -> ModuleType:
    """Triton, or an OptionError that says how to get it."""
    try:
        import triton
    except ImportError as problem:
        raise OptionError("compiling for CUDA or Ascend requires triton; pip install 'xllmc[cuda]'") from problem
    return triton


def make_ttir(
    fn: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[tuple[int, ...], Any] | None = None,
    attrs: Mapping[tuple[int, ...], Sequence[Sequence[Any]]] | None = None,
) -> str:
    """The TTIR text of ``fn``, a ``@triton.jit`` function, after Triton's first stage: inlined and simplified.

    signature: parameter name to Triton type (``*fp32``, ``i32``, ``constexpr``); constexprs: a parameter's index, in a
    tuple, to its value; attrs: the same index to attributes, as ``[["tt.divisibility", 16]]``.
    Raises XllmcError where Triton refuses the function.
    """
    triton = import_triton()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.compiler import ir, make_backend

    # Line information holds this machine's paths, and two compiles must give the same text.
    triton.knobs.compilation.disable_line_info = True
    source = ASTSource(fn=fn, signature=dict(signature), constexprs=dict(constexprs or {}), attrs=dict(attrs or {}))
    target = GPUTarget("cuda", _CAPABILITY, 32)
    backend = make_backend(target)
    options = backend.parse_options({})
    stages: dict[str, Any] = {}
    backend.add_stages(stages, options, source.language)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    try:
        functions, modules = backend.get_codegen_implementation(options), backend.get_module_map()
        module = source.make_ir(target, options, functions, modules, context)
        return str(stages["ttir"](module, {}))
    except Exception as problem:  # Triton's own errors share no base, and kernels may be a plugin's
        raise XllmcError(f"Triton cannot read kernel {source.name}: {last_line(problem)}") from problem


def last_line(problem: Exception) -> str:
    """The end of what Triton says, which tells most; an error without words is named."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(problem).__name__
