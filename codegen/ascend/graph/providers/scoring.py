"""The function ``score``. ``sample`` is not written: its rows are C records, and the host chooses tokens itself."""

from ..call import NpuCall, provides


@provides("token_logprob")
def token_logprob(call: NpuCall) -> None:
    call.give(call.expression("{0}.log_softmax(-1).gather(-1, {1}.long()[:, None])[:, 0]"))
