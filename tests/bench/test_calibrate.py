"""Fitting a profile: rates that made the times are found again, and what is printed and kept has its shape."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xllmc.bench import calibrate_command
from xllmc.bench.calibrate import GEOMETRIES, Sample, make_profile, settled, typical
from xllmc.bench.fit import Timed, fit_rates
from xllmc.runtime.artifact.schema import Work
from xllmc.runtime.cli import run
from xllmc.runtime.cost import launch_seconds, parts, rated_seconds
from xllmc.runtime.machine import Profile, Rates, generic_profile

GENERIC = generic_profile()
SHARE = st.floats(0.2, 1.5)


def work(width: int) -> Work:
    return Work(
        op="linear",
        dtype="bf16",
        streamed={"1": 2 * width * width},
        read={"T": 2 * width},
        write={"T": 2 * width},
        flops={"T": 2 * width * width},
        tasks={"1": width // 32},
    )


def timed(rates: Rates, width: int, tokens: int, footprint: float) -> tuple[Timed, float]:
    at_ceilings = parts(work(width), GENERIC.ceilings, {"T": tokens}, footprint)
    return Timed(at_ceilings, rated_seconds(at_ceilings, rates)), rated_seconds(at_ceilings, rates)


@settings(max_examples=15)
@given(overhead=st.floats(3e-7, 1e-5), streaming=SHARE, handling=SHARE, arithmetic=SHARE)
def test_a_fit_predicts_what_its_rates_would_make(overhead, streaming, handling, arithmetic):
    rates = Rates(overhead=overhead, streaming=streaming, handling=handling, arithmetic=arithmetic)
    cases = [(w, t, f) for w in (128, 512, 2048) for t in (1, 8, 64, 512) for f in (1e6, 1e9)]
    samples = [timed(rates, *case)[0] for case in cases]
    found = Rates(
        **dict(zip(("overhead", "streaming", "handling", "arithmetic"), fit_rates(samples, 1e-6), strict=True))
    )
    for case in ((1024, 24, 1e9), (256, 300, 1e7)):
        at_ceilings, expected = timed(rates, *case)
        assert rated_seconds(at_ceilings.parts, found) == pytest.approx(expected, rel=0.1)


def samples() -> list[Sample]:
    made = []
    for model, held_out, width in (("a", False, 256), ("b", False, 1024), ("c", True, 512)):
        for tokens in (1, 16, 256):
            seconds = launch_seconds(work(width), GENERIC, {"T": tokens}, 1e8)
            made.append(Sample(model, held_out, work(width), {"T": tokens}, 1e8, np.array([seconds]), seconds))
    other = work(256).model_copy(update={"op": "rms_norm"})
    return [*made, *(Sample("a", held, other, {"T": 4}, 1e8, np.array([5e-6]), 5e-6) for held in (False, True))]


def test_a_profile_says_how_well_it_predicts_what_was_held_out():
    profile = make_profile(samples(), GENERIC.ceilings)
    rates = profile.kernels["linear/bf16"]
    assert (rates.samples, rates.held_out_samples) == (6, 3)
    assert rates.error < 0.1 and rates.held_out_error < 0.2
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_a_typical_time_is_not_moved_by_those_that_waited():
    times = np.array([1.0, 1.01, 1.02, 0.99, 1.0, 1.01, 300.0, 50.0, 75.0, 160.0, 1.4, 9.0])
    assert typical(times) == pytest.approx(1.0, rel=0.03)


def test_times_that_no_machine_reaches_do_not_count():
    real = launch_seconds(work(1024), GENERIC, {"T": 64}, 1e8)
    waited = Sample("a", False, work(1024), {"T": 64}, 1e8, np.array([1e-7] * 9 + [real] * 4))
    never = Sample("a", False, work(1024), {"T": 64}, 1e8, np.array([1e-7] * 9))
    restless = Sample("a", False, work(1024), {"T": 64}, 1e8, real * np.array([1, 1.1, 3, 5, 9, 20]))
    (found,) = settled([waited, never, restless], GENERIC.ceilings)
    assert found.seconds == pytest.approx(real)


def test_geometries_fit_and_hold_out_every_family_of_models():
    for held_out in (False, True):
        families = {g.family for g in GEOMETRIES if g.held_out is held_out}
        assert {"qwen3", "gemma2", "gpt2"} <= families
    assert {g.dtype for g in GEOMETRIES} == {"bf16", "fp32"}


def test_the_command_keeps_the_profile_and_prints_it(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile = make_profile(samples(), GENERIC.ceilings)
    monkeypatch.setattr(calibrate_command, "calibrate", lambda threads, say: say("limits") or profile)
    assert run(["calibrate", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"file", "name", "profile"}
    assert Profile.model_validate_json(Path(report["file"]).read_text()) == profile
    assert run(["calibrate"]) == 0
    assert "linear/bf16" in capsys.readouterr().out
