"""``xllmc bench cuda`` without a GPU: what it says then, and how it judges figures."""

import json
from dataclasses import asdict, replace

import pytest
from xllmc.bench.cuda.command import SIZES, chosen
from xllmc.bench.cuda.device import DeviceRecord, Limits
from xllmc.bench.cuda.figures import Decode, Prefill, Speed, totals
from xllmc.bench.cuda.measure import CudaFigures
from xllmc.bench.cuda.parity import Parity
from xllmc.bench.cuda.peer import PeerSpeed
from xllmc.bench.cuda.report import report
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.artifact.schema import Work

from tests.commands import run_command

DECODE = Decode(1, 224, 0.005, 30e-6, 200.0, 16e9, 16e9, 0.004)
SPEED = Speed(9.0, 1.5, 20, (DECODE,), Prefill(2048, 0.05, 3e13, 0.7))
FIGURES = CudaFigures(
    "2026-01-01",
    DeviceRecord("a GPU", "sm_90", 1, 132, "1", "1 of 2", "1 of 2", "3.11", {}),
    Limits(4e12, 8e14),
    (Parity("fp32", 256, 1e-4, 2e-4, 20.0, True),),
    {"8b": SPEED},
    {"8b": replace(SPEED, decode=(replace(DECODE, step_seconds=0.006),))},
    {"8b": PeerSpeed({1: 100.0}, 0.06)},
)


def test_without_a_gpu_it_says_so(capfd: pytest.CaptureFixture):
    result = run_command(capfd, "bench", "cuda")
    assert result.code == 2 and "requires an NVIDIA GPU" in result.err


@pytest.mark.parametrize("option", [("--size", "9b"), ("--part", "all")])
def test_unknown_choices(option: tuple[str, str], capfd: pytest.CaptureFixture):
    result = run_command(capfd, "bench", "cuda", *option)
    assert result.code == 2 and "must be one of" in result.err


def test_choices_come_in_their_own_order():
    assert chosen(["8b", "0.6b"], SIZES, "--size") == ["0.6b", "8b"]
    assert chosen(None, SIZES, "--size") == list(SIZES)
    with pytest.raises(OptionError):
        chosen(["x"], SIZES, "--size")


def test_every_figure_is_held_against_what_is_wanted():
    lines = {line[:44].strip(): line[44:] for line in report(FIGURES).splitlines()}
    assert "80%" in lines["8b: decode, 1: of the limit"] and "met" in lines["8b: decode, 1: of the limit"]
    assert "met" in lines["8b: decode, 1: host gap"]
    assert "met: at least 1.2x" in lines["8b: decode, 1 over transformers"]
    assert "83% of the speed" in lines["8b: batch-invariant decode, 1"]
    assert "MISSED" in lines["8b: batch-invariant decode, 1"]
    assert json.loads(json.dumps(asdict(FIGURES)))["limits"]["matrix_flops"] == 8e14


def test_only_weights_and_states_count_as_traffic():
    work = Work(
        op="linear", dtype="bf16", streamed={"1": 100}, read={"T": 7}, write={"T": 9}, flops={"T": 1000}, tasks={"1": 1}
    )
    norm = work.model_copy(update={"op": "rms_norm"})
    assert totals((work, norm), {"T": 2}) == (200, 2000)
