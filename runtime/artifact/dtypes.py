"""Element types by their short names, and bfloat16 on numpy, which has none: it travels as uint16."""

import numpy as np

ITEM_BYTES = {
    "f64": 8,
    "f32": 4,
    "bf16": 2,
    "f16": 2,
    "i64": 8,
    "i32": 4,
    "i16": 2,
    "i8": 1,
    "u64": 8,
    "u32": 4,
    "u16": 2,
    "u8": 1,
    "bool": 1,
}

_NUMPY = {
    "f64": np.float64,
    "f32": np.float32,
    "bf16": np.uint16,
    "f16": np.float16,
    "i64": np.int64,
    "i32": np.int32,
    "i16": np.int16,
    "i8": np.int8,
    "u64": np.uint64,
    "u32": np.uint32,
    "u16": np.uint16,
    "u8": np.uint8,
    "bool": np.bool_,
}

SAFETENSORS = {
    "F64": "f64",
    "F32": "f32",
    "BF16": "bf16",
    "F16": "f16",
    "I64": "i64",
    "I32": "i32",
    "I16": "i16",
    "I8": "i8",
    "U64": "u64",
    "U32": "u32",
    "U16": "u16",
    "U8": "u8",
    "BOOL": "bool",
}
"""Safetensors' names of these types (its format specification)."""


def numpy_dtype(name: str) -> np.dtype:
    """The numpy dtype that carries ``name``'s bytes (uint16 for bf16)."""
    return np.dtype(_NUMPY[name])


def bf16_to_f32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values: np.ndarray) -> np.ndarray:
    """Round to nearest, ties to even; NaN stays NaN. Returns uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def cast(values: np.ndarray, source: str, target: str) -> np.ndarray:
    """``values`` of type ``source`` as type ``target``, each in its numpy carrier."""
    if source == target:
        return values
    if source == "bf16":
        values = bf16_to_f32(values)
    # What a narrower type cannot hold becomes infinite, of which the model's logits will tell.
    with np.errstate(over="ignore"):
        return f32_to_bf16(values.astype(np.float32)) if target == "bf16" else values.astype(numpy_dtype(target))
