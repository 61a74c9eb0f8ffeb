"""What ``manifest.json`` and ``plan.json`` hold. Unknown fields are errors; everything is frozen."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
ABI_VERSION = 1
"""Of the C interface of kernel libraries (``xllmc/abi.h``)."""

Symbol = Literal["T", "S", "R", "B"]
"""Sizes known only at a step: tokens, sequences, rows whose logits are wanted, columns of the block tables."""

DeviceSize = Literal["T", "S", "R", "B", "Q"]
"""The same, and ``Q``: the most tokens that one sequence has in the step, 1 where all decode. A device's kernels read
a step's sizes from memory, i32 in this order.
"""


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
    """``sizes``: where a device's kernels read the step's sizes (``DeviceSize``); its name is empty."""

    kind: Literal["buffer", "weight", "input", "state", "sizes"]
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


class Term(Record):
    """``ceil(factor * size / divisor)``, where the size is 1 without a symbol."""

    symbol: DeviceSize | None = None
    factor: int = 1
    divisor: int = 1


Axis = tuple[Term, ...]
"""How many programs a grid has along one axis: the sum of its terms."""


class Condition(Record):
    """Whether a size is within bounds, both included."""

    symbol: DeviceSize
    least: int = 0
    most: int | None = None


class Launch(Record):
    kernel: str
    """The exported C symbol, or the name of one of the plan's device kernels."""
    operands: tuple[Operand, ...]
    """Of a device kernel: pointers alone. Whatever else it needs is constant in it, or among the sizes."""
    origin: str
    """The graph node it came from, for traces and errors."""
    work: Work | None = None
    """None where its op states no cost, and where another launch of the same node states it."""
    grid: tuple[Axis, Axis, Axis] | None = None
    """Of a device kernel: its programs, at the sizes that a graph is captured for; None on the CPU."""
    when: tuple[Condition, ...] = ()
    """It is launched where all of these hold, so that kernels for few tokens stand beside those for many."""


class FunctionPlan(Record):
    """One executable list of launches: ``forward`` (tokens to logits), ``sample`` and ``score``."""

    name: str
    inputs: tuple[InputEntry, ...]
    outputs: dict[str, str]
    """Result name to buffer name."""
    launches: tuple[Launch, ...]


class DeviceKernel(Record):
    """A kernel that was compiled ahead of time for a device."""

    name: str
    """By which launches name it."""
    path: str
    """Of its binary (or, where only the device's own compiler makes one, its last text form) in the engine."""
    symbol: str
    """Its entry in the binary."""
    parameters: tuple[str, ...]
    """Names of its pointer parameters, in order. Two further ones follow, unused and null: Triton's scratch memory."""
    pointers: tuple[str, ...] = ()
    """What each of them points to, in Triton's words: ``*bf16``."""
    warps: int
    shared_bytes: int
    """Dynamic shared memory of one program."""
    registers: int | None = None
    """Of one thread; None where no binary was made."""
    spilled_bytes: int | None = None
    """Of one thread's stack: what was spilled for want of registers, or is an array."""
    config: dict[str, int] = Field(default_factory=dict)
    """Tile sizes and pipeline stages that were chosen for it."""


class Plan(Record):
    arenas: dict[str, int]
    """Symbol, or ``fixed``, to its arena's bytes per unit."""
    buffers: tuple[BufferEntry, ...]
    functions: tuple[FunctionPlan, ...]
    device_kernels: tuple[DeviceKernel, ...] = ()
    """Empty on the CPU."""


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
    batch_invariant: bool = True
    """Whether a request's results have the same bits whatever else is in a step."""
    model: ModelFacts
    weights: tuple[WeightEntry, ...]
    random_weights: int | None = None
    """A seed: for measurements, weights with a recipe are random numbers that the runtime makes, and the weight file
    holds the others alone."""
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
