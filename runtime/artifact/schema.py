"""What ``manifest.json`` and ``plan.json`` hold. Unknown fields are errors; everything is frozen."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
ABI_VERSION = 1
"""Of the C interface of kernel libraries (``xllmc/abi.h``)."""

Symbol = Literal["T", "S", "R", "B"]
"""Sizes known only at a step: tokens, sequences, rows whose logits are wanted, columns of the block tables."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFacts(Record):
    architecture: str
    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    max_context: int
    """Positions a sequence may have, prompt and output together."""
    dtype: str
    eos_token_ids: tuple[int, ...]
    parameters: int


class WeightEntry(Record):
    """One tensor of ``weights.safetensors``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """As stored (packed)."""
    recipe: dict[str, Any] | None
    """``Recipe.to_json()``; None for a constant, which no update changes."""


class StateGroup(Record):
    """Layers whose caches share one block table."""

    index: int
    window: int | None
    """Positions a token attends to, itself included; None: all before it."""
    page_tokens: int
    names: tuple[str, ...]


class StateEntry(Record):
    """The paged key-value cache of one layer. Page layout: see ``attention.h``."""

    name: str
    kind: Literal["paged"]
    group: int
    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: str
    page_bytes: int
    """Keys and values of one page, all heads."""


class InputEntry(Record):
    """A step input the engine fills: shape is symbols and sizes, row-major."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class BufferEntry(Record):
    """A live range's place in one of the arenas: ``offset`` and ``bytes`` count per unit of ``scale``.

    The arena of a symbol is laid out for the capacity chosen at load: a buffer starts at offset * capacity.
    ``scale`` None: a buffer of fixed size.
    """

    name: str
    scale: Symbol | None
    offset: int
    bytes: int


class Pointer(Record):
    kind: Literal["buffer", "weight", "input", "state"]
    name: str


class Scalar(Record):
    kind: Literal["symbol"]
    name: Symbol


class Integer(Record):
    kind: Literal["int"]
    value: int


class Real(Record):
    kind: Literal["real"]
    value: float


Operand = Annotated[Pointer | Scalar | Integer | Real, Field(discriminator="kind")]


Counts = dict[str, int]
"""A polynomial of a step's sizes: monomial (``1``, ``T``, ``C*T``) to coefficient."""


class Work(Record):
    """What one launch moves and computes. Beside the symbols, monomials may name ``C``, the mean number of positions
    that a query attends to, and ``C@256``, the same where a window of 256 limits it.
    """

    op: str
    dtype: str
    """Of what it reads first."""
    streamed: Counts
    """Bytes of weights and states, read from where the last step left them."""
    read: Counts
    """Bytes of values that the same step made."""
    write: Counts
    flops: Counts
    tasks: Counts
    """Pieces that threads may share."""


class Launch(Record):
    kernel: str
    """The exported C symbol."""
    operands: tuple[Operand, ...]
    origin: str
    """The graph node it came from, for traces and errors."""
    work: Work | None = None
    """None where its op states no cost."""


class FunctionPlan(Record):
    """One executable list of launches: ``forward`` (tokens to logits), ``sample`` and ``score``."""

    name: str
    inputs: tuple[InputEntry, ...]
    outputs: dict[str, str]
    """Result name to buffer name."""
    launches: tuple[Launch, ...]


class Plan(Record):
    arenas: dict[str, int]
    """Symbol, or ``fixed``, to its arena's bytes per unit."""
    buffers: tuple[BufferEntry, ...]
    functions: tuple[FunctionPlan, ...]


class KernelLibrary(Record):
    isa: str
    """``x86-64-v3``, ``x86-64-v4`` or ``x86-64-v4-bf16``: the least instruction set that may load it."""
    path: str
    glibc: str
    """The oldest C library it loads with, ``2.17`` say."""


class FileEntry(Record):
    path: str
    bytes: int
    sha256: str


class PassRecord(Record):
    """What one pass did, without times, which differ from run to run."""

    name: str
    stage: str
    numerics: Literal["exact", "reassociating", "lossy"]
    matches: int
    near_misses: tuple[str, ...]
    options: dict[str, Any] = Field(default_factory=dict)
    plugin: str = ""
    """The distribution it came with, where that is not xllmc."""


class PluginRecord(Record):
    """An installed package that took part in the compile."""

    name: str
    version: str
    passes: dict[str, int]
    """Its passes, with how often each matched."""
    target: str = ""
    """The target it brought, if the engine is for that one."""
    family: str = ""
    """The model family it told of, if the model is of that one."""


class Manifest(Record):
    schema_version: int
    abi_version: int
    xllmc: str
    tools: dict[str, str]
    """Versions of what made it: torch, transformers, the C++ compiler."""
    target: str
    model: ModelFacts
    weights: tuple[WeightEntry, ...]
    states: tuple[StateEntry, ...]
    groups: tuple[StateGroup, ...]
    passes: tuple[PassRecord, ...]
    plugins: tuple[PluginRecord, ...] = ()
    declared_matches: dict[str, int] = Field(default_factory=dict)
    """Pass name to how many sites the model's family says it must match."""
    kernels: tuple[KernelLibrary, ...]
    graphs: dict[str, str]
    """Stage to its text file."""
    files: tuple[FileEntry, ...]
    """All other files of the reproducible set; the writer fills it."""
    digest: str = ""
    """SHA-256 of ``manifest.json`` itself with this field as 64 zeros; the writer fills it. It names the engine."""
