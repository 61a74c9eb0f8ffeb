"""The difference of two engine directories: what was compiled, how, and what it launches."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...runtime.artifact.errors import ArtifactError, OptionError
from ...runtime.artifact.reader import read_manifest, read_plan
from ...runtime.artifact.schema import FunctionPlan, Manifest, Operand, Plan, Pointer
from .changes import Change, Comparison, Facts, Text, changed_facts
from .kernels import SHARED, KernelChange, compare_kernels, kernels_of
from .names import matched_names, same_but_for_numbers
from .programs import compare_programs, read_program

SOURCES = (".cpp", ".cu", ".py")
"""Files under ``kernels/`` that hold generated kernels."""


def compare(before: Path, after: Path, stage: str | None = None) -> Comparison:
    """Two engine directories, two files with the text of a program, or one of each.

    ``stage``: whose graph of the engines to compare; None: the last that both have, or that of the file. Raises
    ArtifactError or OptionError.
    """
    engines = [path for path in (before, after) if path.is_dir()]
    if len(engines) == 2:
        return compare_engines(before, after, stage)
    if not engines and stage is not None:
        raise OptionError(f"--graph chooses a stage of an engine, but {before} and {after} are files; leave it out")
    texts = {path: read_text(path) for path in (before, after) if not path.is_dir()}
    programs = {path: read_program(text, str(path)) for path, text in texts.items()}
    for path in engines:
        wanted = stage or next(program.stage for program in programs.values())
        programs[path] = read_program(*graph_text(path, read_manifest(path, libraries=False), wanted))
    return Comparison(str(before), str(after), (), compare_programs(programs[before], programs[after]))


def compare_engines(before: Path, after: Path, stage: str | None = None) -> Comparison:
    """Manifests, plans, kernel sources and the graphs of one stage. Libraries are not loaded, and may be missing."""
    old, new = (read_manifest(path, libraries=False) for path in (before, after))
    common = [name for name in _stages(old) if name in new.graphs]
    wanted = stage or (common[-1] if common else None)
    if wanted not in common:
        raise OptionError(
            f"--graph must be a stage of both engines ({', '.join(common) or 'they share none'}), got {wanted}"
        )
    plans = read_plan(before), read_plan(after)
    programs = [read_program(*graph_text(path, manifest, wanted)) for path, manifest in ((before, old), (after, new))]
    launches = _launches(plans[0]), _launches(plans[1])
    kernels = compare_kernels(_sources(before, old), _sources(after, new), launches)
    facts = [
        *_manifest_facts(old, new),
        *_plan_facts(*plans, matched_names(_weights(old), _weights(new))),
        Facts("kernels", tuple(_kernel_change(c) for c in kernels if c.kind != "launches")),
    ]
    sources = [Text(f"kernel {c.name}", c.source.rows) for c in kernels if c.kind == "changed"]
    changed = {f.title: f for f in facts if f.changes}
    told = {text for text, fact in (("program", "model"), ("weights", "weights")) if fact in changed}
    graph = [text for text in compare_programs(*programs) if text.title not in told]
    return Comparison(str(before), str(after), tuple(changed.values()), (*graph, *sources))


def _stages(manifest: Manifest) -> list[str]:
    """The stages whose graphs an engine has, in the order its passes went through them."""
    order = list(dict.fromkeys(record.stage for record in manifest.passes))
    return sorted(manifest.graphs, key=lambda stage: order.index(stage) if stage in order else -1)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        raise ArtifactError(
            f"{path} cannot be read: {problem.strerror}; give two engine directories or two graph files"
        ) from problem
    except UnicodeDecodeError as problem:
        raise ArtifactError(f"{path} is neither an engine directory nor text: {problem}") from problem


def graph_text(engine: Path, manifest: Manifest, stage: str) -> tuple[str, str]:
    """The text of a stage's graph, and the file it stands in."""
    if stage not in manifest.graphs:
        raise OptionError(f"--graph must be one of {', '.join(manifest.graphs)} for {engine}, got {stage}")
    file = engine / manifest.graphs[stage]
    return read_text(file), str(file)


# --- facts of the manifest


def _manifest_facts(before: Manifest, after: Manifest) -> Iterator[Facts]:
    yield changed_facts("model", before.model.model_dump(), after.model.model_dump())
    made_by = [{"xllmc": m.xllmc, **m.tools, **{p.name: p.version for p in m.plugins}} for m in (before, after)]
    yield changed_facts("made by", *made_by)
    targets = [{"target": m.target, "levels": ", ".join(k.isa for k in m.kernels)} for m in (before, after)]
    yield changed_facts("target", *targets)
    yield _pass_facts(before, after)
    yield _weight_facts(before, after)
    yield changed_facts("states", _states(before), _states(after))
    yield changed_facts("files", _other_files(before), _other_files(after))


def _pass_facts(before: Manifest, after: Manifest) -> Facts:
    old, new = _passes(before), _passes(after)
    facts = changed_facts("passes", old, new)
    orders = [" ".join(n for n in names if n in others) for names, others in ((old, new), (new, old))]
    moved = Change("order", *orders)
    return Facts("passes", (*facts.changes, moved) if orders[0] != orders[1] else facts.changes)


def _passes(manifest: Manifest) -> dict[str, str]:
    """Each run of a pass: the second of one that runs twice has ``#2`` to its name."""
    runs: Counter[str] = Counter()
    told = {}
    for record in manifest.passes:
        runs[record.name] += 1
        name = record.name if runs[record.name] == 1 else f"{record.name}#{runs[record.name]}"
        near = f", {len(record.near_misses)} nearly" if record.near_misses else ""
        options = "".join(f", {key}={value}" for key, value in sorted(record.options.items()))
        source = f", of {record.plugin}" if record.plugin else ""
        told[name] = f"{record.matches} matches{near} ({record.stage}, {record.numerics}{options}{source})"
    return told


def _weights(manifest: Manifest) -> dict[str, str]:
    return {w.name: f"{w.dtype}{list(w.shape)} {_recipe(w.recipe)}" for w in manifest.weights}


def _weight_facts(before: Manifest, after: Manifest) -> Facts:
    old, new = _weights(before), _weights(after)
    names = matched_names(old, new)
    facts = changed_facts("weights", old, {names[name]: thing for name, thing in new.items()})
    renamed = [
        Change("renamed", names[name], name)
        for name in new
        if old.get(names[name]) == new[name] and not same_but_for_numbers(name, names[name])
    ]
    return Facts("weights", (*facts.changes, *renamed))


def _recipe(recipe: Mapping[str, Any] | None) -> str:
    """A recipe as an expression: ``concat(q_proj.weight, k_proj.weight, axis=0)``."""
    if recipe is None:
        return "constant"
    if recipe["op"] in ("source", "constant"):
        return str(recipe["name"])
    inputs = [_recipe(i) for i in recipe.get("inputs", ())]
    attributes = [f"{k}={v}" for k, v in sorted(recipe.items()) if k not in ("op", "inputs")]
    return f"{recipe['op']}({', '.join(inputs + attributes)})"


def _states(manifest: Manifest) -> dict[str, str]:
    groups = {
        f"group {g.index}": f"window {g.window or 'none'}, {g.page_tokens} tokens a page, {len(g.names)} layers"
        for g in manifest.groups
    }
    states = {
        s.name: f"{s.kind} group {s.group} {s.dtype}[{s.kv_heads}, {s.key_dim}, {s.value_dim}], {s.page_bytes} bytes"
        for s in manifest.states
    }
    return {**groups, **states}


def _other_files(manifest: Manifest) -> dict[str, str]:
    """Files that no other part speaks of: weights' values, tokenizer, kernel headers, libraries."""
    told = {*manifest.graphs.values(), "plan.json", *_source_paths(manifest)}
    return {f.path: f"{f.bytes} bytes, sha256 {f.sha256[:12]}" for f in manifest.files if f.path not in told}


# --- kernels and plans


def _source_paths(manifest: Manifest) -> list[str]:
    return [f.path for f in manifest.files if f.path.startswith("kernels/") and f.path.endswith(SOURCES)]


def _sources(engine: Path, manifest: Manifest) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _source_paths(manifest):
        kernels = kernels_of(read_text(engine / path))
        found |= {f"{path} {name}" if name == SHARED else name: text for name, text in kernels.items()}
    return found


def _kernel_change(change: KernelChange) -> Change:
    before, after = (
        None if name is None else _source_state(row[side] for row in change.source.rows)
        for side, name in enumerate((change.before, change.after))
    )
    return Change(change.name, before, after)


def _source_state(lines: Iterable[str | bool | None]) -> str:
    present = [line for line in lines if isinstance(line, str)]
    return f"{len(present)} lines, sha256 {hashlib.sha256(chr(10).join(present).encode()).hexdigest()[:12]}"


def _launches(plan: Plan) -> dict[str, int]:
    return Counter(launch.kernel for function in plan.functions for launch in function.launches)


def _plan_facts(before: Plan, after: Plan, weights: Mapping[str, str]) -> Iterator[Facts]:
    yield changed_facts("arenas, bytes a unit", before.arenas, after.arenas)
    old, new = ({f.name: f for f in plan.functions} for plan in (before, after))
    for name in dict.fromkeys([*old, *new]):
        ours, theirs = old.get(name), new.get(name)
        facts = changed_facts(f"launches of {name}", _counts(ours), _counts(theirs))
        if not facts.changes and ours and theirs:
            pairs = zip(_calls(ours, before, {}), _calls(theirs, after, weights), strict=True)
            moved = sum(a != b for a, b in pairs)
            changes = (Change("operands or places", None, f"{moved} of {len(ours.launches)} launches"),)
            facts = Facts(facts.title, changes if moved else ())
        yield facts


def _counts(function: FunctionPlan | None) -> dict[str, int]:
    if function is None:
        return {}
    counts = Counter(launch.kernel for launch in function.launches)
    return {"total": len(function.launches), **counts}


def _calls(function: FunctionPlan, plan: Plan, weights: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """Launches by what they read and write, then the function's inputs and outputs. A buffer is its place, whatever its
    name; ``weights`` gives the names of weights that the other side calls otherwise.
    """
    places = {buffer.name: (buffer.scale, buffer.offset, buffer.bytes) for buffer in plan.buffers}

    def operand(value: Operand) -> object:
        if isinstance(value, Pointer) and value.kind == "buffer":
            return places.get(value.name, value.name)
        if isinstance(value, Pointer) and value.kind == "weight":
            return "weight", weights.get(value.name, value.name)
        return value

    calls: list[tuple[Any, ...]] = [(launch.kernel, *map(operand, launch.operands)) for launch in function.launches]
    outputs = {result: places.get(name, name) for result, name in function.outputs.items()}
    return [*calls, (function.inputs, tuple(outputs.items()))]
