"""Triton's interpreter over memory given by address. Import it only where TRITON_INTERPRET=1 was set before triton."""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton.runtime.interpreter as interpreter

_ITEMS = {
    "*fp32": torch.float32,
    "*bf16": torch.bfloat16,
    "*fp16": torch.float16,
    "*i32": torch.int32,
    "*u32": torch.uint32,
    "*u8": torch.uint8,
    "*i64": torch.int64,
}


def patch() -> None:
    """The interpreter keeps bf16 as integers: it multiplies these in ``tl.dot``, and cuts bits off where a float32 is
    rounded. Products are computed in float32 here, and roundings go to nearest, ties to even.
    """
    builder = interpreter.InterpreterBuilder

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        product = np.matmul(_floats(a), _floats(b), dtype=np.float32) + d.data
        return interpreter.TensorHandle(product.astype(d.data.dtype), d.dtype.scalar)

    builder.create_dot = create_dot
    truncate = builder.create_fp_trunc

    def create_fp_trunc(self: Any, src: Any, dst_type: Any) -> Any:
        if dst_type.scalar == interpreter.tl.bfloat16 and src.dtype.scalar == interpreter.tl.float32:
            bits = torch.from_numpy(np.ascontiguousarray(src.data)).to(torch.bfloat16).view(torch.uint16).numpy()
            return interpreter.TensorHandle(bits.reshape(src.data.shape), dst_type.scalar)
        return truncate(self, src, dst_type)

    builder.create_fp_trunc = create_fp_trunc


def _floats(handle: Any) -> np.ndarray:
    if handle.dtype.scalar != interpreter.tl.bfloat16:
        return handle.data.astype(np.float32)
    return (handle.data.astype(np.uint32) << 16).view(np.float32)


@cache
def load(path: Path, name: str) -> Any:
    """The kernel of a source file."""
    spec = importlib.util.spec_from_file_location(f"interpreted_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def run_kernel(path: Path, name: str, pointers: list[str], addresses: list[int], grid: tuple[int, int, int]) -> None:
    """Run all programs of a kernel. ``pointers``: Triton's types of the parameters, which hold ``addresses``."""
    given = [
        torch.frombuffer((ctypes.c_char * 16).from_address(address), dtype=_ITEMS[kind])
        for kind, address in zip(pointers, addresses, strict=True)
    ]
    with np.errstate(all="ignore"):
        load(path, name)[grid](*given)


patch()
