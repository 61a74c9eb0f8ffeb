"""What a value of a program is: a tensor of a dtype and a shape, or the state of a layer."""

import re
from dataclasses import dataclass

import torch

from ...runtime.artifact.dtypes import ITEM_BYTES
from .dims import Size, parse_size, product, whole

TORCH_DTYPES: dict[str, torch.dtype] = {
    "f64": torch.float64,
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "i64": torch.int64,
    "i32": torch.int32,
    "u8": torch.uint8,
    "u32": torch.uint32,
    "bool": torch.bool,
}
DTYPE_NAMES = {v: k for k, v in TORCH_DTYPES.items()}


@dataclass(frozen=True)
class TensorType:
    dtype: str
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def torch_dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.dtype]

    @property
    def elements(self) -> Size:
        return product(self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape where it follows no symbol; ValueError otherwise."""
        return tuple(map(whole, self.shape))

    @property
    def is_float(self) -> bool:
        return self.dtype in ("f64", "f32", "bf16", "f16")

    def bytes_of(self, shape_part: tuple[Size, ...]) -> Size:
        return product(shape_part) * ITEM_BYTES[self.dtype]

    def with_dtype(self, dtype: str) -> "TensorType":
        return TensorType(dtype, self.shape)

    def with_shape(self, *shape: Size) -> "TensorType":
        return TensorType(self.dtype, shape)


@dataclass(frozen=True)
class PagedType:
    """The paged key-value cache of one layer; ``group`` names the block table it shares with like layers."""

    group: int
    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: str

    def __str__(self) -> str:
        return f"paged<{self.group}>{self.dtype}[{self.kv_heads}, {self.key_dim}, {self.value_dim}]"


@dataclass(frozen=True)
class TupleType:
    """The value of an op with several results; only ``get`` reads it."""

    items: tuple["ValueType", ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


ValueType = TensorType | PagedType | TupleType


def parse_type(text: str) -> ValueType:
    """The type that ``str`` printed."""
    text = text.strip()
    if text.startswith("("):
        items = re.findall(r"(?:paged<\d+>)?\w+\[[^\]]*\]", text)
        return TupleType(tuple(parse_type(i) for i in items))
    if match := re.fullmatch(r"paged<(\d+)>(\w+)\[(\d+), (\d+), (\d+)\]", text):
        group, dtype, heads, key, value = match.groups()
        return PagedType(int(group), int(heads), int(key), int(value), dtype)
    if match := re.fullmatch(r"(\w+)\[(.*)\]", text):
        dtype, shape = match.groups()
        if dtype in ITEM_BYTES:
            return TensorType(dtype, tuple(parse_size(s.strip()) for s in shape.split(",")) if shape.strip() else ())
    raise ValueError(f"not a type: {text!r}; expected dtype[sizes], paged<group>dtype[...] or (types)")
