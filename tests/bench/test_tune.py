"""``xllmc bench tune`` without a GPU: its candidates are real kernels, and its file is what compiles read."""

from pathlib import Path

import pytest
from xllmc.bench.cuda.tune import merged, tune
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.configs import BOUNDS
from xllmc.codegen.triton.providers.matmul import problem_of
from xllmc.codegen.triton.tuned import Choices, parse_choices
from xllmc.compiler.ir.program import is_call

from tests.commands import run_command
from tests.programs import program

PRODUCT = """
func forward(%x: bf16[T, 64]) -> (y) {
  %y: bf16[T, 96] = linear(%x, @w, none)
  return %y
}"""


def test_without_a_gpu_it_says_so(tmp_path: Path, capfd: pytest.CaptureFixture):
    result = run_command(capfd, "bench", "tune", "-o", tmp_path / "sm_90.json")
    assert result.code == 2 and "requires an NVIDIA GPU" in result.err
    assert not list(tmp_path.iterdir())


def test_the_fastest_candidate_is_kept_in_the_form_that_compiles_read(monkeypatch: pytest.MonkeyPatch):
    made = program(PRODUCT, ["w [96, 64]"], "bf16")
    nodes = {problem_of(node): node for node in made.forward.calls if is_call(node, "linear")}
    timed = []

    def fake_runnable(torch, call, rows, work):
        timed.append((call.launches[0].kernel.config, rows))
        return len(timed)

    monkeypatch.setattr("xllmc.bench.cuda.tune.runnable", fake_runnable)
    # The last candidate of every range is the fastest.
    choices = list(tune(None, made, nodes, ARCHITECTURES["sm_90"], 3, lambda number: -number, lambda text: None))
    assert [choice.rows for choice in choices] == list(BOUNDS)
    whole = merged(None, choices, "a GPU")
    read = parse_choices(whole.model_dump_json(), "sm_90.json")
    assert list(read.values()) == [choice.config for choice in choices]
    assert all(config in [one for one, _ in timed] for config in read.values())
    again = merged(whole, [choices[0].model_copy(update={"warps": 8})], "another GPU")
    assert again.device == "another GPU" and len(again.choices) == len(choices)
    assert again.choices[0].warps == 8
    assert Choices.model_validate_json(again.model_dump_json()) == again
