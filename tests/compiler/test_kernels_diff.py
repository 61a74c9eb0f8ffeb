"""The kernels that fixed tiny models get are those of the committed baseline, and whatever changes in them shows."""

import json
import shutil
from pathlib import Path

import pytest
from xllmc.compiler.commands import kernels_diff_command
from xllmc.compiler.diff.kernels import SHARED, compare_kernels, kernels_of
from xllmc.compiler.kernels_diff import BASELINE, Snapshot, compare_snapshots, read_baseline, snapshot, write_baseline
from xllmc.compiler.tiny_models import TINY_MODELS

from tests.commands import Finished, run_command
from tests.project.sources import ROOT

COMMITTED = ROOT / "tests" / "codegen" / "cpu" / "baseline"
LOOP = """\
XLLMC_EXPORT void xk_loop_{hash}(const xllmc_arg* a, const xllmc_worker* worker) {{
    const auto* in0 = static_cast<float*>(a[0].p);
    for (auto [row, end] = share(*worker, rows); row < end; row++) {{
        {body}
    }}
}}
"""
SOURCE = f"""\
// Kernels of one engine.
#include "xllmc/pool.h"

// 4 launches, such as model.layers.0
XLLMC_EXPORT void xk_norm(const xllmc_arg* a, const xllmc_worker* worker) {{
    norm<64>(a[0].p, *worker);
}}

// 1 launches, such as model
{LOOP.format(hash="0011aabb", body="out[row] = in0[row] * 2.0f;")}"""


@pytest.fixture(scope="module")
def made() -> Snapshot:
    """What this compiler makes of the tiny models."""
    return snapshot()


def test_generated_kernels_are_those_of_the_baseline(made: Snapshot):
    found = compare_snapshots(read_baseline(COMMITTED), made)
    lines = [f"{model.name}: {k.name} ({k.kind})" for model in found.models for k in model.kernels]
    lines += [f"header {change.what}" for change in found.headers]
    place = COMMITTED.relative_to(ROOT)
    assert found.equal, (
        f"generated kernels changed:\n{chr(10).join(lines)}\nLook at them with `xllmc kernels-diff {place} --show`; "
        f"if they are meant to, `xllmc kernels-diff {place} --update` and commit the new baseline."
    )


def test_every_model_has_its_launches_counted(made: Snapshot):
    assert list(made.models) == [model.name for model in TINY_MODELS]
    for model in made.models.values():
        kernels = kernels_of(model.source)
        assert kernels.keys() - {SHARED} == model.launches.keys()
        assert 'include "xllmc/pool.h"' in kernels[SHARED]


def test_generating_twice_gives_the_same(made: Snapshot):
    assert snapshot(TINY_MODELS[:1]).models["llama-bf16"] == made.models["llama-bf16"]


# --- what a change of sources is called


def changes(before: str, after: str, launches_after: int = 4) -> list[tuple[str, str]]:
    counts = {"xk_norm": 4}, {"xk_norm": launches_after}
    return [(c.name, c.kind) for c in compare_kernels(kernels_of(before), kernels_of(after), counts)]


def test_sources_are_taken_apart_into_kernels():
    kernels = kernels_of(SOURCE)
    assert list(kernels) == [SHARED, "xk_norm", "xk_loop_0011aabb"]
    assert kernels["xk_norm"].splitlines()[1:] == ["    norm<64>(a[0].p, *worker);", "}"]
    assert kernels[SHARED] == '#include "xllmc/pool.h"'


@pytest.mark.parametrize(
    ("old", "new", "launches", "expected"),
    [
        ("such as model.layers.0", "such as another", 4, []),
        ("norm<64>", "norm<65>", 4, [("xk_norm", "changed")]),
        ("xk_norm", "xk_norm", 5, [("xk_norm", "launches")]),
        ("xk_norm(", "xk_rms(", 4, [("xk_norm", "removed"), ("xk_rms", "added")]),
        ("pool.h", "worker.h", 4, [(SHARED, "changed")]),
        ("0011aabb", "ccdd2233", 4, [("xk_loop_0011aabb -> xk_loop_ccdd2233", "changed")]),
    ],
)
def test_a_change_is_named(old: str, new: str, launches: int, expected: list):
    assert changes(SOURCE, SOURCE.replace(old, new), launches) == expected


def test_of_several_loops_those_alike_belong_together():
    before = "".join(LOOP.format(hash=f"0000000{i}", body=f"first[{i}] + second[{i}];" * 9) for i in range(3))
    after = before.replace("0000000", "abcdef0").replace("first[1]", "first[9]")
    assert changes(before, after) == [(f"xk_loop_0000000{i} -> xk_loop_abcdef0{i}", "changed") for i in range(3)]
    assert changes(before, before + LOOP.format(hash="99999999", body="")) == [("xk_loop_99999999", "added")]


# --- the command


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], made: Snapshot, monkeypatch: pytest.MonkeyPatch):
    """Run the command with what was generated once for this module."""
    monkeypatch.setattr(kernels_diff_command, "snapshot", lambda started: made)

    def call(*arguments: object) -> Finished:
        return run_command(capfd, "kernels-diff", *arguments)

    return call


def test_a_baseline_written_is_equal_to_itself(run, tmp_path: Path):
    place = tmp_path / "new" / "baseline"
    assert run(place, "--update").code == 0
    assert run(place) == (0, "", "")
    assert json.loads(run(place, "--json").out) == {"equal": True, "models": {}, "headers": {}}


@pytest.fixture
def stale(made: Snapshot, tmp_path: Path) -> Path:
    """A baseline with another source, other launches and another header."""
    write_baseline(tmp_path, made)
    source = tmp_path / "gemma2-bf16.cpp"
    source.write_text(source.read_text().replace("paged_attention<", "paged_intention<"))
    index = json.loads((tmp_path / BASELINE).read_text())
    index["launches"]["gpt2-fp32"]["xk_sample"] = 7
    index["headers"]["norm.h"] = "0" * 64
    (tmp_path / BASELINE).write_text(json.dumps(index))
    return tmp_path


def test_differences_end_with_1_and_are_named(run, stale: Path):
    done = run(stale)
    assert done.code == 1 and done.err == ""
    lines = [line.split() for line in done.out.splitlines() if line.strip()]
    assert ["gemma2-bf16"] in lines and ["xk_sample", "7", "1", "launches"] in lines
    assert sum(line[0].startswith("xk_paged_attention") and line[-1] == "changed" for line in lines) == 2
    assert any(line[:2] == ["norm.h", "000000000000"] for line in lines)
    assert f"kernels-diff {stale} --update" in done.out and "@@" not in done.out
    shown = run(stale, "--show").out
    assert "-    paged_intention<" in shown and "+    paged_attention<" in shown
    told = json.loads(run(stale, "--json").out)
    assert list(told["models"]) == ["gemma2-bf16", "gpt2-fp32"] and list(told["headers"]) == ["norm.h"]


def test_an_update_removes_models_that_are_gone(run, stale: Path, made: Snapshot):
    (stale / "old-fp32.cpp").write_text("")
    (stale / "notes.cpp").write_text("")
    index = json.loads((stale / BASELINE).read_text())
    index["launches"]["old-fp32"] = {}
    (stale / BASELINE).write_text(json.dumps(index))
    assert run(stale).code == 1 or "old-fp32" not in made.models
    assert run(stale, "--update").code == 0
    assert not (stale / "old-fp32.cpp").exists() and (stale / "notes.cpp").exists()
    assert run(stale).code == 0


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda place: shutil.rmtree(place), "make one with xllmc kernels-diff"),
        (lambda place: (place / BASELINE).write_text("{"), "is not a baseline"),
        (lambda place: (place / "llama-bf16.cpp").unlink(), "llama-bf16.cpp cannot be read"),
    ],
)
def test_bad_input_ends_with_2(run, stale: Path, damage, reason: str):
    damage(stale)
    done = run(stale)
    assert done.code == 2 and done.out == "" and reason in done.err
    assert len(done.err.splitlines()) == 1
