"""From a model directory to a program: the model on the meta device, exported, imported.

Nothing of the model's size is allocated: parameters have shapes only, and buffers that the model computes itself
(rotary frequencies) are computed once, as constants.
"""

import copy
import inspect
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import fx
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ..compiler.ir.dims import symbol
from ..compiler.ir.program import Function, Group, Program, Weight
from ..compiler.ir.types import DTYPE_NAMES, TORCH_DTYPES, PagedType, TensorType, ValueType
from ..runtime.artifact.dtypes import numpy_dtype
from ..runtime.artifact.errors import CheckpointError
from ..runtime.artifact.recipe import Recipe, Tensor
from ..runtime.artifact.schema import ModelFacts
from . import seams
from .aten import HANDLERS
from .config import first_line, read_json_object
from .importer import Handler, Imported, Importer, strip
from .sources import SourceNames, source_names

TRACED_TOKENS = 7


@dataclass(frozen=True)
class TraceOptions:
    dtype: str = "bf16"
    """Of weights and activations: bf16, f16 or f32."""
    max_context: int | None = None
    """Positions a sequence may have; None: what the model's configuration says."""
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    """Import rules of the model's family, by ATen operation; they come before those that all models share."""


class Traced(NamedTuple):
    program: Program
    sources: SourceNames


def trace(
    config: PretrainedConfig, options: TraceOptions, available: Iterable[str] | None = None, eos: tuple[int, ...] = ()
) -> Traced:
    """One step graph over T flat tokens, equal to the model's forward pass in eval mode.

    ``available``: names of the checkpoint's tensors, so that recipes name them; None for a model without checkpoint.
    """
    masks = seams.register()
    config = copy.deepcopy(config)  # transformers writes the chosen attention into it
    model = meta_model(config, options.dtype)
    exported = export(model)
    sources = source_names(model, available)
    program = _Tracer(model, exported, sources.names, config, options, eos).program()
    masks.require_windows((g.window for g in program.groups if g.window), config.model_type)
    return Traced(program, sources)


def meta_model(config: PretrainedConfig, dtype: str) -> PreTrainedModel:
    """The model in eval mode with parameters on the meta device and its computed buffers on the CPU."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation=seams.SEAM, dtype=TORCH_DTYPES[dtype], trust_remote_code=False
            )
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        if seams.SEAM in str(error):
            raise CheckpointError(
                f"{config.model_type} does not use transformers' attention interface, through which tracing goes"
            ) from error
        reason = f"unknown name {error}" if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(f"transformers cannot build {config.model_type}: {reason}") from error
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise CheckpointError(f"{config.model_type} takes no position_ids, which tracing gives every token")
    for module in model.modules():
        computed = [n for n in module._buffers if n in module._non_persistent_buffers_set]
        for name in computed:
            module._buffers[name] = torch.empty_like(module._buffers[name], device="cpu")
        if computed:
            model._init_weights(module)
    return model.eval()


def export(model: PreTrainedModel) -> torch.export.ExportedProgram:
    tokens = torch.export.Dim("T")
    ids = torch.zeros(TRACED_TOKENS, 1, dtype=torch.long, device="meta")
    with warnings.catch_warnings(), quiet_logging():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(
                model,
                (),
                {"input_ids": ids, "position_ids": ids.clone(), "use_cache": False},
                dynamic_shapes={"input_ids": {0: tokens}, "position_ids": {0: tokens}, "use_cache": None},
                strict=False,
            )
        except (RuntimeError, ValueError, TypeError, torch._dynamo.exc.UserError) as error:
            raise CheckpointError(
                f"{model.config.model_type} cannot be traced by torch.export: {first_line(error)}"
            ) from error


@contextmanager
def quiet_logging() -> Iterator[None]:
    """No log lines: what fails is raised, and said once."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


class _Tracer:
    """Builds the program from an exported graph; used once."""

    def __init__(
        self,
        model: PreTrainedModel,
        exported: torch.export.ExportedProgram,
        names: dict[str, str],
        config: PretrainedConfig,
        options: TraceOptions,
        eos: tuple[int, ...],
    ) -> None:
        self.model = model
        self.exported = exported
        self.names = names
        self.config = config
        self.options = options
        self.eos = eos
        self.graph = fx.Graph()
        self.inputs: dict[str, fx.Node] = {}
        self.weights: dict[str, Weight] = {}
        self.constants: dict[str, Tensor] = {}
        self.groups: list[Group] = []

    def program(self) -> Program:
        traced = self.exported.graph
        strip(traced)
        self.add_inputs(traced)
        handlers = {**HANDLERS, **self.options.handlers, "xllmc.attention.default": self.attention}
        importer = Importer(self.graph, self.token_symbol(), handlers)
        self.bind_placeholders(importer, traced)
        output = importer.run(traced, self.exported.graph_module)
        logits = next(v for v in flatten(output) if isinstance(v, Imported))
        importer.where = "lm_head"
        rows = importer.emit("take_rows", logits.node, self.inputs["logit_rows"])
        self.graph.output((rows,))
        forward = Function("forward", self.graph, ("logits",))
        program = Program(self.facts(), {"forward": forward}, self.weights, self.constants, tuple(self.groups))
        return program

    # --- inputs

    def token_symbol(self) -> str:
        ids = next(n for n in self.exported.graph.nodes if n.name == "input_ids")
        return str(ids.meta["val"].shape[0])

    def add_inputs(self, traced: fx.Graph) -> None:
        tokens, sequences = symbol("T"), symbol("S")
        self.input("token_ids", TensorType("i32", (tokens,)))
        self.input("positions", TensorType("i32", (tokens,)))
        self.input("query_starts", TensorType("i32", (symbol("S+1"),)))
        self.input("logit_rows", TensorType("i32", (symbol("R"),)))
        layers = []
        for node in traced.nodes:
            if str(node.target) == "xllmc.attention.default":
                k, v, layer, window = node.args[1], node.args[2], node.args[3], node.args[5]
                group = self.group_of(int(window) or None)
                heads, key_dim = (int(s) for s in (k.meta["val"].shape[1], k.meta["val"].shape[3]))
                dtype = DTYPE_NAMES[k.meta["val"].dtype]
                layers.append((layer, PagedType(group.index, heads, key_dim, int(v.meta["val"].shape[3]), dtype)))
        for group in self.groups:
            self.input(f"slots.{group.index}", TensorType("i32", (tokens,)))
            self.input(f"block_table.{group.index}", TensorType("i32", (sequences, symbol("B"))))
        for layer, kind in layers:
            self.input(f"kv.{layer}", kind)

    def group_of(self, window: int | None) -> Group:
        for group in self.groups:
            if group.window == window:
                return group
        self.groups.append(Group(len(self.groups), window))
        return self.groups[-1]

    def input(self, name: str, kind: ValueType) -> None:
        node = self.graph.placeholder(name)
        node.target = name
        node.meta["type"] = kind
        self.inputs[name] = node

    def bind_placeholders(self, importer: Importer, traced: fx.Graph) -> None:
        signature = self.exported.graph_signature
        owners = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in traced.nodes:
            if node.op != "placeholder":
                continue
            if node.name in ("input_ids", "position_ids"):
                name = "token_ids" if node.name == "input_ids" else "positions"
                importer.values[node] = Imported(self.inputs[name], (0,))
            elif node.name in owners:
                importer.values[node] = self.weight(importer, owners[node.name], node) if node.users else None
            else:
                importer.values[node] = node.meta.get("val")

    def weight(self, importer: Importer, name: str, node: fx.Node) -> Imported | float:
        value = node.meta["val"]
        kind = TensorType(DTYPE_NAMES[value.dtype], tuple(int(s) for s in value.shape))
        buffer = dict(self.model.named_buffers()).get(name)
        if buffer is not None and buffer.device.type == "cpu":
            if buffer.dim() == 0:
                return buffer.item()
            self.constants[name] = as_tensor(buffer)
            self.weights[name] = Weight(kind, Recipe.constant(name))
        else:
            if name not in self.names:
                raise CheckpointError(
                    f"the checkpoint has no tensor for {name} (shape {list(value.shape)}); check that its files belong "
                    "to this config.json"
                )
            self.weights[name] = Weight(kind, Recipe.source(self.names[name], kind.sizes, kind.dtype))
        attribute = self.graph.create_node("get_attr", name)
        attribute.meta.update(type=kind, where="")
        return Imported(attribute, tuple(i for i in range(len(kind.shape))))

    # --- the seam

    def attention(self, importer: Importer, node: fx.Node) -> Imported:
        q, k, v = (importer.value(a) for a in node.args[:3])
        layer, scale, window, softcap = node.args[3:]
        tokens = symbol("T")

        def heads(value: Imported, traced: fx.Node) -> fx.Node:
            return importer.reshape(value.node, (tokens, *(int(traced.meta["val"].shape[i]) for i in (1, 3))))

        q, k, v = (heads(value, traced) for value, traced in zip((q, k, v), node.args[:3], strict=True))
        state = self.inputs[f"kv.{layer}"]
        group = state.meta["type"].group
        written = importer.emit("kv_write", state, k, v, self.inputs[f"slots.{group}"])
        out = importer.emit(
            "paged_attention",
            q,
            written,
            self.inputs[f"block_table.{group}"],
            self.inputs["query_starts"],
            self.inputs["positions"],
            scale=float(scale),
            window=int(window),
            softcap=float(softcap),
        )
        shape = importer.shape(node)
        return importer.viewed(Imported(out, (0, 2, 3)), shape)

    # --- facts

    def facts(self) -> ModelFacts:
        text = self.config.get_text_config()
        limit = int(getattr(text, "max_position_embeddings", 2048))
        wanted = self.options.max_context or limit
        if limit < 2:
            raise CheckpointError(f"max_position_embeddings must be at least 2, a prompt and an answer; got {limit}")
        if wanted > limit:
            raise CheckpointError(
                f"--max-context must be at most the model's max_position_embeddings {limit}, got {wanted}"
            )
        parameters = {id(p): p.numel() for p in self.model.parameters()}
        return ModelFacts(
            architecture=type(self.model).__name__,
            family=self.config.model_type,
            vocab_size=int(text.vocab_size),
            hidden_size=int(text.hidden_size),
            layers=int(text.num_hidden_layers),
            max_context=wanted,
            dtype=self.options.dtype,
            eos_token_ids=self.eos,
            parameters=sum(parameters.values()),
        )


def flatten(value: object) -> Iterable[object]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from flatten(item)
    else:
        yield value


def as_tensor(value: torch.Tensor) -> Tensor:
    dtype = DTYPE_NAMES[value.dtype]
    carrier = value.view(torch.uint16) if dtype == "bf16" else value
    return Tensor(np.ascontiguousarray(carrier.detach().numpy()).astype(numpy_dtype(dtype), copy=False), dtype)


def eos_token_ids(model_dir: Path, config: PretrainedConfig) -> tuple[int, ...]:
    """End-of-sequence ids: of generation_config.json where there is one, else of config.json."""
    path = model_dir / "generation_config.json"
    value = getattr(config, "eos_token_id", None)
    if path.is_file():
        value = read_json_object(path).get("eos_token_id", value)
    ids = [i for i in (value if isinstance(value, list | tuple) else [value]) if i is not None]
    if not all(isinstance(i, int) for i in ids):
        raise CheckpointError(f"eos_token_id must be a token id or a list of them, got {value!r} in {model_dir}")
    return tuple(ids)


__all__ = ["TraceOptions", "eos_token_ids", "trace"]
