"""``xllmc inspect``: what an engine directory holds, without loading its code (except with ``--cost``)."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .artifact.errors import ArtifactError, OptionError
from .artifact.reader import check_files, read_manifest, read_plan
from .artifact.schema import FileEntry, Manifest, Plan
from .inspect_kernels import kernel_lines, table
from .machine import target_profile


def inspect_command(
    engine: Annotated[Path, typer.Argument(help="An engine directory.")],
    check: Annotated[bool, typer.Option("--check", help="Hash every file and compare with the manifest.")] = False,
    graph: Annotated[str | None, typer.Option(help="Print the graph of this stage.")] = None,
    cost: Annotated[bool, typer.Option("--cost", help="Time its kernels beside what the cost model says.")] = False,
    threads: Annotated[int | None, typer.Option(help="With --cost; default: all this process may use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what an engine is made of, and whether it is whole."""
    if threads is not None and not cost:
        raise OptionError("--threads needs --cost; add it, or leave --threads out")
    if cost:
        from .cost_command import show_cost  # which loads the engine's code

        if check or graph is not None:
            raise OptionError("--cost goes with --threads and --json alone; ask for --check or --graph separately")
        show_cost(engine, threads, as_json)
        return
    manifest = read_manifest(engine)
    if check:
        with _progress(sum(entry.bytes for entry in manifest.files)) as checked:
            check_files(engine, manifest, checked)
    plan = read_plan(engine)
    text = _graph_text(engine, manifest, graph) if graph is not None else None
    if as_json:
        report: dict[str, Any] = manifest.model_dump(mode="json") | {"plan": _plan_counts(plan), "checked": check}
        if plan.device_kernels:
            report["device_kernels"] = [line.as_json() for line in kernel_lines(plan, target_profile(manifest.target))]
        print(json.dumps(report if text is None else report | {"graph": text}, ensure_ascii=False))
        return
    for line in text.splitlines() if text is not None else _summary(manifest, plan):
        print(line)
    if check:
        print(f"checked: all {len(manifest.files)} files match the manifest")


def _graph_text(engine: Path, manifest: Manifest, stage: str) -> str:
    if stage not in manifest.graphs:
        raise OptionError(f"--graph must be one of {', '.join(manifest.graphs)}, got {stage}")
    file = engine / manifest.graphs[stage]
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ArtifactError(f"{file} is damaged ({problem}); copy or compile the engine again") from problem


def _plan_counts(plan: Plan) -> dict[str, dict[str, int]]:
    """Per function, kernels and how often each is launched."""
    return {
        function.name: dict(Counter(launch.kernel for launch in function.launches).most_common())
        for function in plan.functions
    }


def _summary(manifest: Manifest, plan: Plan) -> Iterator[str]:
    model = manifest.model
    yield f"model    {model.architecture} ({model.family}), {model.parameters / 1e6:.1f} M parameters, {model.dtype}"
    sizes = f"{model.layers} layers of {model.hidden_size}, vocabulary {model.vocab_size}"
    yield f"         {sizes}, context {model.max_context}"
    yield f"made by  xllmc {manifest.xllmc} with {', '.join(f'{k} {v}' for k, v in sorted(manifest.tools.items()))}"
    built = ", ".join(library.isa for library in manifest.kernels) or f"{len(plan.device_kernels)} kernels"
    yield f"target   {manifest.target}: {built}{', batch-invariant' if manifest.batch_invariant else ''}"
    size = sum(entry.bytes for entry in manifest.files)
    yield f"files    {len(manifest.files)}, {size / 1e6:.1f} MB; weights {len(manifest.weights)} tensors"
    for group in manifest.groups:
        states = [state for state in manifest.states if state.group == group.index]
        per_token = sum(state.page_bytes for state in states) / group.page_tokens
        window = f"window {group.window}" if group.window else "all positions"
        yield f"states   group {group.index}: {len(states)} layers, {window}, {per_token:.0f} bytes per token"
    yield f"arenas   {', '.join(f'{unit} bytes per {symbol}' for symbol, unit in sorted(plan.arenas.items()))}"
    yield f"graphs   {', '.join(manifest.graphs)}"
    yield f"digest   {manifest.digest}"
    yield ""
    yield f"{'pass':<28}{'stage':<14}{'numerics':<16}matches"
    for record in manifest.passes:
        yield f"{record.name:<28}{record.stage:<14}{record.numerics:<16}{record.matches}"
        yield from (f"    nearly: {miss}" for miss in record.near_misses)
    for name, kernels in _plan_counts(plan).items():
        yield ""
        yield f"{name}: {sum(kernels.values())} launches"
        yield from (f"{count:6}  {kernel}" for kernel, count in kernels.items())
    if plan.device_kernels:
        choice = target_profile(manifest.target)
        yield ""
        yield from table(kernel_lines(plan, choice))
        if choice is not None:
            profile = choice.profile
            yield f"times of all launches of one step, predicted for {profile.cpu} ({profile.measured})"


@contextmanager
def _progress(total: int) -> Iterator[Callable[[FileEntry], None]]:
    """A bar on terminals, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda entry: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("checking", total=total)
        yield lambda entry: progress.advance(task, entry.bytes)
