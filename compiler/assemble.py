"""A compiled program as an artifact: entries and bytes of its weights, its files, its manifest."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from ..runtime.artifact.dtypes import ITEM_BYTES
from ..runtime.artifact.errors import CheckpointError
from ..runtime.artifact.pages import PAGE_TOKENS, page_bytes
from ..runtime.artifact.recipe import PANEL, Recipe, Tensor, evaluate
from ..runtime.artifact.schema import (
    ABI_VERSION,
    SCHEMA_VERSION,
    Manifest,
    PluginRecord,
    StateEntry,
    StateGroup,
    WeightEntry,
)
from ..runtime.artifact.version import xllmc_version
from ..runtime.artifact.writer import EngineWriter
from .ir.program import Program, Weight
from .pipeline.listing import PassList
from .pipeline.plugins import Origin
from .pipeline.run import PassReport
from .progress import Listener
from .target import Bundle
from .weight_source import WeightSource

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def weight_entries(program: Program) -> list[WeightEntry]:
    """What the artifact stores for each weight. A recipe without sources is a constant, and is not replayed."""
    return [
        WeightEntry(
            name=name,
            dtype=weight.type.dtype,
            shape=stored_shape(weight),
            recipe=weight.stored.to_json() if weight.recipe.sources() else None,
        )
        for name, weight in program.weights.items()
    ]


def stored_shape(weight: Weight) -> tuple[int, ...]:
    shape = weight.type.sizes
    if weight.layout == "rows":
        return shape
    panels = -(-shape[0] // PANEL)
    return (panels, -(-shape[1] // 2), PANEL, 2) if weight.type.dtype == "bf16" else (panels, shape[1], PANEL)


def entry_bytes(entry: WeightEntry) -> int:
    count = ITEM_BYTES[entry.dtype]
    for size in entry.shape:
        count *= size
    return count


def write_weights(
    writer: EngineWriter, program: Program, entries: list[WeightEntry], source: WeightSource, listener: Listener
) -> None:
    def read(leaf: Recipe) -> Tensor:
        return program.constants[leaf.attribute("name")] if leaf.op == "constant" else source.read(leaf)

    writer.add_weights(
        entries,
        lambda entry: evaluate(program.weights[entry.name].stored, read),
        lambda entry: listener.advanced(entry_bytes(entry), entry.name),
    )


def write_files(writer: EngineWriter, bundle: Bundle, graphs: Mapping[str, str], model_dir: Path) -> None:
    for path, text in bundle.sources.items():
        writer.add_text(path, text)
    for path, library in bundle.libraries.items():
        writer.add_file(path, library)
    for stage, text in graphs.items():
        writer.add_text(f"graph/{stage}.txt", text)
    for name, file in tokenizer_files(model_dir):
        writer.add_file(f"tokenizer/{name}", file)


def tokenizer_files(model_dir: Path) -> Iterator[tuple[str, Path]]:
    """The tokenizer's files; one that has no tokenizer.json (slow formats) is converted by transformers."""
    present = [name for name in TOKENIZER_FILES if (model_dir / name).is_file()]
    yield from ((name, model_dir / name) for name in present)
    convertible = any((model_dir / name).is_file() for name in ("vocab.json", "tokenizer.model", "vocab.txt"))
    if "tokenizer.json" in present or not convertible:
        return
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="xllmc-") as work:
        copied = Path(shutil.copytree(model_dir, Path(work) / "model", ignore=shutil.ignore_patterns("*.safetensors")))
        try:
            tokenizer = AutoTokenizer.from_pretrained(copied, trust_remote_code=False, local_files_only=True)
            tokenizer.backend_tokenizer.save(str(copied / "tokenizer.json"))
        except (ValueError, OSError, AttributeError) as error:
            raise CheckpointError(
                f"the tokenizer of {model_dir} has no tokenizer.json and cannot be converted to one: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        yield "tokenizer.json", copied / "tokenizer.json"


def plugin_records(
    listed: PassList, reports: list[PassReport], targets: Mapping[Origin, str], families: Mapping[Origin, str]
) -> tuple[PluginRecord, ...]:
    """The packages besides xllmc that took part: whose passes ran, and who brought the target and the family."""
    matches: dict[Origin, dict[str, int]] = {}
    for report in reports:
        own = matches.setdefault(listed.origins[report.name], {})
        own[report.name] = own.get(report.name, 0) + report.matches
    return tuple(
        PluginRecord(
            name=origin.name,
            version=origin.version,
            passes=matches.get(origin, {}),
            target=targets.get(origin, ""),
            family=families.get(origin, ""),
        )
        for origin in sorted({*matches, *targets, *families}, key=lambda o: o.name)
        if origin.plugin
    )


def make_manifest(
    program: Program,
    bundle: Bundle,
    entries: list[WeightEntry],
    reports: list[PassReport],
    graphs: Iterable[str],
    target: str,
    plugins: tuple[PluginRecord, ...],
    declared: dict[str, int],
) -> Manifest:
    states = tuple(
        StateEntry(
            name=name,
            kind="paged",
            group=kind.group,
            kv_heads=kind.kv_heads,
            key_dim=kind.key_dim,
            value_dim=kind.value_dim,
            dtype=kind.dtype,
            page_bytes=page_bytes(kind.kv_heads, kind.key_dim, kind.value_dim, kind.dtype),
        )
        for name, kind in program.states.items()
    )
    owners = {name: plugin.name for plugin in plugins for name in plugin.passes}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        abi_version=ABI_VERSION,
        xllmc=xllmc_version(),
        tools={"torch": version("torch"), "transformers": version("transformers"), **bundle.tools},
        target=target,
        batch_invariant=bundle.invariant,
        model=program.facts,
        weights=tuple(entries),
        states=states,
        groups=tuple(
            StateGroup(
                index=g.index,
                window=g.window,
                page_tokens=PAGE_TOKENS,
                names=tuple(s.name for s in states if s.group == g.index),
            )
            for g in program.groups
        ),
        passes=tuple(r.record(plugin=owners.get(r.name, "")) for r in reports),
        plugins=plugins,
        declared_matches=declared,
        kernels=bundle.kernels,
        graphs={stage: f"graph/{stage}.txt" for stage in graphs},
        files=(),
    )
