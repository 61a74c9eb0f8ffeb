"""Kernels of these tests' own, as text: each is put into a file with its faults, which tests must notice."""

SILU_MUL = """
def silu_mul(sizes, x, y, out):
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(sizes):
        return
    column = tl.arange(0, 64)
    inside = column < 48
    a = tl.load(x + row * 48 + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(y + row * 48 + column, mask=inside, other=0.0).to(tl.float32)
    value = a / (1.0 + tl.exp(-a)) * b
    tl.store(out + row * 48 + column, value.to(tl.bfloat16), mask=inside)
"""

ADD_NORM = """
def add_norm(sizes, x, r, weight, total, out):
    row = tl.program_id(0)
    if row >= tl.load(sizes):
        return
    column = tl.arange(0, 128)
    inside = column < 96
    at = row * 96 + column
    value = tl.load(x + at, mask=inside, other=0.0) + tl.load(r + at, mask=inside, other=0.0)
    tl.store(total + at, value, mask=inside)
    scale = tl.rsqrt(tl.sum(value * value, 0) / 96 + 1e-6)
    tl.store(out + at, value * scale * tl.load(weight + column, mask=inside, other=0.0), mask=inside)
"""

PRODUCT = """
def product(sizes, x, weight, out):
    rows = tl.load(sizes)
    row = tl.program_id(0) * 16 + tl.arange(0, 16)
    column = tl.program_id(1) * 32 + tl.arange(0, 32)
    value = tl.zeros((16, 32), tl.float32)
    for start in range(0, 72, 32):
        k = start + tl.arange(0, 32)
        a = tl.load(x + row[:, None] * 72 + k[None, :], mask=(row < rows)[:, None] & (k < 72)[None, :], other=0.0)
        known = (column < 40)[:, None] & (k < 72)[None, :]
        b = tl.load(weight + column[:, None] * 72 + k[None, :], mask=known, other=0.0)
        value = tl.dot(a, tl.trans(b), value)
    inside = (row < rows)[:, None] & (column < 40)[None, :]
    tl.store(out + row[:, None] * 40 + column[None, :], value, mask=inside)
"""

GATHER = """
def gather(sizes, table, ids, out):
    count = tl.load(sizes)
    row = tl.program_id(0) * 8 + tl.arange(0, 8)
    inside = row < count
    index = tl.load(ids + row, mask=inside, other=0)
    column = tl.arange(0, 32)
    value = tl.load(table + index[:, None] * 32 + column[None, :])
    tl.store(out + row[:, None] * 32 + column[None, :], value, mask=inside[:, None])
"""

SOFTMAX = """
def softmax(sizes, x, out):
    rows = tl.load(sizes)
    row = tl.arange(0, 16)
    column = tl.arange(0, 32)
    at = row[:, None] * 32 + column[None, :]
    value = tl.load(x + at, mask=(row < rows)[:, None], other=0.0)
    value = tl.where(column[None, :] <= row[:, None], value, float("-inf"))
    value = tl.exp(value - tl.max(value, 1)[:, None])
    tl.store(out + at, value / tl.sum(value, 1)[:, None], mask=(row < rows)[:, None])
"""

SUM_TO_TAIL = """
def sum_to_tail(sizes, x, out):
    total = tl.zeros((64,), tl.float32)
    for start in range(0, tl.load(sizes), 64):
        at = start + tl.arange(0, 64)
        total += tl.load(x + at, mask=at < tl.load(sizes), other=0.0)
    tl.store(out, tl.sum(total, 0))
"""
