"""Kernels per layer: ours, and TorchInductor's for the same transformers layer.

Both sides are counted as the difference between a model of four layers and one of two, halved, so that embedding, final
norm and output head count on neither side, and layers that alternate (Gemma 2's windows) count in equal parts.

Ours: launches of the forward plan. Views are none. A layer's launches include writing its keys and values to the paged
cache and reading them back.

Inductor's: calls in the code that it generates for the CPU (bfloat16, symbolic number of tokens, one graph): its own
C++ kernels, matrix products (mm, addmm, bmm, oneDNN's linear), attention, and whatever else it leaves to a library.
There is no cache, so it writes none. Masks that all layers share are counted on neither side. Attention is PyTorch's
fused one, but for Gemma 2, whose soft cap that does not compute: there transformers' eager attention is compiled. Two
settings are counted: the default one, and with weights frozen, where oneDNN's products take epilogues.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..codegen.cpu.lower import lower
from ..compiler.driver import family_named
from ..compiler.pipeline.listing import pass_list
from ..compiler.pipeline.run import RunOptions, run
from ..compiler.tiny_models import CONFIGS, TOKENS
from ..models.config import load_config
from ..models.trace import TraceOptions, eos_token_ids, trace
from ..runtime.artifact.version import xllmc_version

MODELS = tuple(CONFIGS)

FEW, MANY = 2, 4


@dataclass(frozen=True)
class LayerKernels:
    """Kernels of one layer, by kind; ours by op."""

    family: str
    ours: dict[str, float]
    inductor: dict[str, float]
    frozen: dict[str, float]

    @property
    def counts(self) -> tuple[float, float, float]:
        return sum(self.ours.values()), sum(self.inductor.values()), sum(self.frozen.values())

    @property
    def at_or_under(self) -> bool:
        ours, *others = self.counts
        return ours <= min(others)


def measure(directory: Path, families: list[str], say: Callable[[str], None]) -> list[LayerKernels]:
    """``directory``: where small config.json files are written."""
    from .inductor import inductor_calls

    found = []
    for family in families:
        attention = "eager" if family == "gemma2" else "sdpa"

        def per_layer(count: Callable[[dict[str, object]], Counter[str]], family: str = family) -> dict[str, float]:
            few, many = (count(with_layers(family, layers)) for layers in (FEW, MANY))
            return {k: (many[k] - few[k]) / (MANY - FEW) for k in sorted(many) if many[k] != few[k]}

        say(f"{family}: ours")
        ours = per_layer(partial(our_launches, directory))
        say(f"{family}: Inductor")
        inductor = per_layer(partial(inductor_calls, attention=attention, freezing=False))
        say(f"{family}: Inductor, frozen weights")
        frozen = per_layer(partial(inductor_calls, attention=attention, freezing=True))
        found.append(LayerKernels(family, ours, inductor, frozen))
    return found


def with_layers(family: str, layers: int) -> dict[str, object]:
    names = {"model_type": family, "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]]}
    return {**names, **CONFIGS[family], **TOKENS, "n_layer" if family == "gpt2" else "num_hidden_layers": layers}


def our_launches(directory: Path, config: dict[str, object]) -> Counter[str]:
    """Launches of the forward plan, by op."""
    (directory / "config.json").write_text(json.dumps(config))
    loaded = load_config(directory)
    options = TraceOptions("bf16", None, family_named(loaded.model_type)[0].handlers)
    program, _ = trace(loaded, options, None, eos_token_ids(directory, loaded))
    program, _ = run(program, pass_list().passes, RunOptions(verification="structure"))
    launches = lower(program, xllmc_version()).plan.functions[0].launches
    calls = Counter(n.target.name for n in program.forward.calls if not n.target.traits.view)
    assert calls.total() == len(launches), (calls, len(launches))
    return calls


def report(found: list[LayerKernels]) -> str:
    """A table: kernels per layer, and what they are."""
    lines = [f"{'':8} {'xllmc':>6} {'Inductor':>9} {'frozen':>7}   kernels of one layer"]
    for one in found:
        ours, inductor, frozen = (f"{count:g}" for count in one.counts)
        for label, counts in (("xllmc", one.ours), ("Inductor", one.inductor), ("frozen", one.frozen)):
            head = f"{one.family:8} {ours:>6} {inductor:>9} {frozen:>7}" if label == "xllmc" else " " * 32
            lines.append(f"{head}   {label + ':':9} {', '.join(f'{n:g} {kind}' for kind, n in counts.items())}")
    return "\n".join(lines)


def record(found: list[LayerKernels]) -> dict[str, object]:
    """What a file under ``bench/results`` holds."""
    import torch
    import transformers

    return {
        "bench": "fusion",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cores": os.cpu_count()},
        "versions": {
            "xllmc": xllmc_version(),
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "kernels_per_layer": {
            one.family: dict(zip(("xllmc", "inductor", "inductor_frozen"), one.counts, strict=True)) for one in found
        },
        "at_or_under": all(one.at_or_under for one in found),
        "kinds": [asdict(one) for one in found],
    }
