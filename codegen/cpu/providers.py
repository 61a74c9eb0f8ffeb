"""Which kernel computes which op: one function for each op that a header claims."""

from collections.abc import Callable

from ...compiler.ir.program import is_weight, type_of
from ...compiler.ops import OPS
from .copies import write_copy
from .epilogues import write_epilogue
from .kernel import KernelCall, width
from .loops import write_loop

HEADERS = ("attention.h", "embedding.h", "gemm.h", "heads.h", "norm.h", "qkv.h", "rope.h", "rows.h", "sampler.h")
"""Where the kernels of xllmc's own ops are; importing this module registers them with the ops."""

Provider = Callable[[KernelCall], None]

ACTIVATIONS = {
    "none": "Identity",
    "silu": "Silu",
    "relu": "Relu",
    "gelu_erf": "GeluErf",
    "gelu_tanh": "GeluTanh",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}


def provides(*ops: str) -> Callable[[Provider], Provider]:
    def register(provider: Provider) -> Provider:
        for name in ops:
            OPS[name].kernel("cpu")(provider)
        return provider

    return register


@provides("linear")
def _linear(call: KernelCall) -> None:
    x, weight, bias, *operands = call.node.args
    options = call.node.kwargs
    call.instantiate(
        "linear",
        call.ctype(x),
        call.ctype(call.node),
        width(call.node),
        width(x),
        ACTIVATIONS[options.get("activation", "none")],
        "true" if options.get("gated") else "false",
    )
    call.value(x)
    call.value(weight, packed=True)
    call.value(bias)
    call.result()
    call.rows(x)
    if options.get("epilogue"):
        write_epilogue(call, operands)


@provides("embedding")
def _embedding(call: KernelCall) -> None:
    table, ids, *operands = call.node.args
    packed = is_weight(table) and call.program.weights[table.target].layout == "panels"
    through = call.node.kwargs.get("epilogue")
    template = ("embed_packed" if packed else "embed") + ("_through" if through else "")
    results = [call.ctype(call.node)] if through else []
    call.instantiate(template, call.ctype(table), *results, width(table))
    call.value(table, packed)
    call.value(ids)
    call.result()
    call.rows(ids, trailing=0)
    if through:
        write_epilogue(call, operands)


@provides("take_rows")
def _take_rows(call: KernelCall) -> None:
    x, rows = call.node.args
    row = 1
    for size in type_of(x).shape[1:]:
        row *= size
    call.instantiate("take_rows", call.ctype(x), row)
    call.value(x)
    call.value(rows)
    call.result()
    call.rows(rows, trailing=0)


@provides("rms_norm", "layer_norm")
def _norm(call: KernelCall) -> None:
    x, *weights = call.node.args
    call.instantiate(call.node.target.name, call.ctype(x), call.ctype(weights[0]), width(x))
    for operand in (x, *weights):
        call.value(operand)
    call.result()
    call.rows(x)
    call.real(call.node.kwargs["eps"])


@provides("add_rms_norm", "add_layer_norm")
def _add_norm(call: KernelCall) -> None:
    x, residual, *weights = call.node.args
    call.instantiate(call.node.target.name, call.ctype(x), call.ctype(weights[0]), width(x))
    for operand in (x, residual, *weights):
        call.value(operand)
    call.result(0)
    call.result(1)
    call.rows(x)
    call.real(call.node.kwargs["eps"])


@provides("rope_table")
def _rope_table(call: KernelCall) -> None:
    positions, inv_freq = call.node.args
    call.instantiate("rope_table", 2 * width(inv_freq))
    call.value(positions)
    call.value(inv_freq)
    call.real(call.node.kwargs["scale"])
    call.result()
    call.rows(positions, trailing=0)


@provides("qkv_write")
def _qkv_write(call: KernelCall) -> None:
    qkv, table, q_weight, k_weight, state, slots = call.node.args
    cache = type_of(state)
    weight_type = call.ctype(q_weight if q_weight is not None else qkv)
    call.instantiate(
        "qkv_write",
        call.ctype(qkv),
        call.node.kwargs["heads"],
        cache.kv_heads,
        cache.key_dim,
        cache.value_dim,
        width(table) if table is not None else 0,
        weight_type,
    )
    call.value(qkv)
    for weight in (q_weight, k_weight):
        if weight is None:
            call.literal(f"static_cast<const {weight_type}*>(nullptr)")
        else:
            call.value(weight)
    call.real(call.node.kwargs["eps"])
    call.value(table)
    call.value(slots)
    call.result(0)
    call.value(state)
    call.rows(qkv)


@provides("rope")
def _rope(call: KernelCall) -> None:
    x, table = call.node.args
    call.instantiate("rope", call.ctype(x), type_of(x).shape[1], width(x), width(table))
    call.value(x)
    call.value(table)
    call.result()
    call.rows(x, trailing=2)


@provides("kv_write")
def _kv_write(call: KernelCall) -> None:
    state, k, v, slots = call.node.args
    cache = type_of(state)
    call.instantiate("kv_write", call.ctype(k), cache.kv_heads, cache.key_dim, cache.value_dim)
    for operand in (state, k, v, slots):
        call.value(operand)
    call.rows(k, trailing=2)


@provides("paged_attention")
def _paged_attention(call: KernelCall) -> None:
    q, state, block_table, query_starts, positions, *ancestors = call.node.args
    if any(words is not None for words in ancestors):
        raise ValueError("the CPU's attention does not read ancestors, which the trees of verify steps need; pass None")
    cache, options = type_of(state), call.node.kwargs
    heads = type_of(q).shape[1]
    call.instantiate(
        "paged_attention",
        call.ctype(q),
        heads,
        cache.kv_heads,
        cache.key_dim,
        cache.value_dim,
        options["window"],
    )
    for operand in (q, state, block_table, query_starts, positions):
        call.value(operand)
    call.result()
    for size in type_of(block_table).shape:
        call.size(size)
    call.real(options["scale"])
    call.real(options["softcap"])


@provides("sample")
def _sample(call: KernelCall) -> None:
    logits, rows, history, bias_ids, bias_values, bitmask = call.node.args
    call.instantiate("sample")
    call.value(logits)
    call.value(rows)
    call.arguments[-1] = call.arguments[-1].replace("uint8_t", "const xllmc_sampling_row")
    for operand in (history, bias_ids, bias_values, bitmask):
        call.value(operand)
    for index in range(4):
        call.result(index)
    call.rows(logits)
    call.literal(str(width(logits)))


@provides("token_logprob")
def _token_logprob(call: KernelCall) -> None:
    logits, targets = call.node.args
    call.instantiate("token_logprob")
    call.value(logits)
    call.value(targets)
    call.result()
    call.literal("nullptr")
    call.rows(logits)
    call.literal(str(width(logits)))


@provides("loop")
def _loop(call: KernelCall) -> None:
    write_loop(call)


@provides("slice", "concat", "permute")
def _copy(call: KernelCall) -> None:
    write_copy(call)
