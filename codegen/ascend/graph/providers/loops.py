"""Loops: their bodies are written out, one torch call an op."""

from ..call import NpuCall, provides


@provides("loop")
def loop(call: NpuCall) -> None:
    call.give(*call.inline(call.attribute("body"), [call.tensor(i) for i in range(len(call.node.args))]))
