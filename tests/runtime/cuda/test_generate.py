"""The toy engine on the stub driver does what it does on the CPU, to the last bit: all that lies between the scheduler
and the kernels is the CUDA runtime's.
"""

from pathlib import Path

from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import SamplingParams

from tests.runtime.cuda.scenarios import generate, generate_on_a_quick_device, generate_with_loose_tables
from tests.runtime.cuda.stub_driver import Gpu

PROMPTS = [[3, 200, 7, 9], [5], list(range(70)), [8, 8, 8], list(range(100, 140)), [1, 2], [250, 251], [17] * 33]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=12, logprobs=3),
    SamplingParams(seed=1, max_tokens=40, n=2, logprobs=0, repetition_penalty=1.2, presence_penalty=0.5),
    SamplingParams(seed=2, max_tokens=9, logit_bias={5: 4.0, 9: -3.0}, top_p=0.9, prompt_logprobs=2),
    SamplingParams(seed=3, max_tokens=5, top_k=3, frequency_penalty=0.7, logit_bias={7: 9.0}),
]


def test_requests_give_what_they_give_on_the_cpu(gpu: Gpu, cuda_toy: Path, toy_library: Path, engine: Engine) -> None:
    expected = [engine.generate(PROMPTS, params) for params in PARAMS]
    assert gpu.play(generate, cuda_toy, toy_library, PROMPTS, PARAMS).result == expected


def test_nothing_is_sent_after_what_reads_it(gpu: Gpu, cuda_toy: Path, toy_library: Path, engine: Engine) -> None:
    expected = [engine.generate(PROMPTS, params) for params in PARAMS]
    assert gpu.play(generate_on_a_quick_device, cuda_toy, toy_library, PROMPTS, PARAMS).result == expected


def test_large_block_tables_are_sent_by_the_step(gpu: Gpu, cuda_toy: Path, toy_library: Path, engine: Engine) -> None:
    record = gpu.play(generate_with_loose_tables, cuda_toy, toy_library, PROMPTS, PARAMS[1:2])
    assert record.result == [engine.generate(PROMPTS, PARAMS[1])]
    sent = [c for c in record.calls("cuMemcpyHtoDAsync")[-20:] if not c["captured"]]
    assert sent and all(c["bytes"] < 2000 for c in sent)
