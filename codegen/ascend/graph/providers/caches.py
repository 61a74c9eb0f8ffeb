"""Keys and values into their pages."""

from ..call import NpuCall, provides
from ..schemas import Value
from ..writer import Cache
from .rotary import rotate


@provides("kv_write")
def kv_write(call: NpuCall) -> None:
    cache = call.cache(0)
    store(call, cache, Value(f"{call.tensor(1)}.contiguous()"), Value(f"{call.tensor(2)}.contiguous()"), call.tensor(3))
    call.give(cache)


def store(call: NpuCall, cache: Cache, k: Value, v: Value, slots: Value) -> None:
    """k, v: [T, kv_heads, dim], contiguous. ``Norm`` is plain rows; the operator's default is another layout."""
    call.run("npu_scatter_pa_kv_cache", k, v, cache.keys, cache.values, slots, cache_mode="Norm")


@provides("qkv_write")
def qkv_write(call: NpuCall) -> None:
    heads, state, kind = call.attribute("heads"), call.type(4), call.type(0)
    sizes = [heads * state.key_dim, state.kv_heads * state.key_dim, state.kv_heads * state.value_dim]
    names = [call.writer.variable(name) for name in ("q", "k", "v")]
    call.writer.say(f"{', '.join(names)} = {call.tensor(0)}.split({sizes}, -1)")
    q, k = (
        _turned(call, Value(name), count, state.key_dim, weight)
        for name, count, weight in ((names[0], heads, 2), (names[1], state.kv_heads, 3))
    )
    v = f"{names[2]}.unflatten(-1, [{state.kv_heads}, {state.value_dim}]).contiguous()"
    cache = call.cache(4)
    store(call, cache, Value(f"{k}.to({kind.torch_dtype})"), Value(v), call.tensor(5))
    call.give(Value(f"{q}.to({kind.torch_dtype})"), cache)


def _turned(call: NpuCall, part: Value, heads: int, dim: int, weight: int) -> Value:
    """Queries or keys, normed and rotated where the op says so, in float32 and contiguous."""
    x = call.let("heads", f"{part}.unflatten(-1, [{heads}, {dim}]).float().contiguous()")
    if call.node.args[weight] is not None:
        gamma = Value(f"{call.tensor(weight)}.float()")
        x, _ = call.results_of("npu_rms_norm", ("normed", None), x, gamma, epsilon=call.attribute("eps"))
    return x if call.node.args[1] is None else call.let("turned", rotate(call, x, dim, 1))
