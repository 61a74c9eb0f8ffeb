"""Writing rows without a scatter: torch-mlir lowers that to a dialect of its own, which only torch-mlir can read."""

from typing import Any

import torch

Tensor = torch.Tensor


def put_rows(x: Tensor, indices: tuple[Tensor | None, ...], values: Tensor, accumulate: bool = False) -> Any:
    """``aten.index_put`` of whole rows: every row of the result looks for the last index that names it.

    x: [N, ...]; one index i64[T] within 0 to N; values: [T, ...]. That compares N x T numbers. Other uses of the
    operation are left as they are.
    """
    index = indices[0]
    if len(indices) != 1 or index is None or index.dim() != 1 or accumulate or values.dim() != x.dim():
        return NotImplemented
    rows, count = torch.arange(x.shape[0]), index.shape[0]
    writer = torch.where(rows[:, None] == index[None, :], torch.arange(count)[None, :], -1).amax(1)
    written = (writer >= 0).reshape(-1, *[1] * (x.dim() - 1))
    return torch.where(written, values[writer.clamp(min=0)], x)
