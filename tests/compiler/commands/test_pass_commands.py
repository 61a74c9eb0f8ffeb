"""The commands that list passes, run them over text, and say what they did to an engine."""

import json
from pathlib import Path

import pytest
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.runtime.artifact.reader import read_manifest

from tests.commands import run_command
from tests.engines import edit_manifest

NAMES = [p.name for p in pass_list().passes]


@pytest.fixture(scope="module")
def engine(engine_dir) -> Path:
    return engine_dir("qwen3", "bf16")


@pytest.fixture
def traced(engine) -> Path:
    return engine / "graph" / "traced.txt"


# --- passes


def test_passes_are_listed_in_their_order(capfd):
    finished = run_command(capfd, "passes", "--json")
    listed = json.loads(finished.out)["passes"]
    assert [p["name"] for p in listed] == NAMES
    assert all(p["doc"] and p["plugin"].startswith("xllmc ") for p in listed)
    table = run_command(capfd, "passes").out
    assert all(name in table for name in NAMES)


def test_one_pass_is_shown(capfd):
    shown = run_command(capfd, "passes", "show", "fuse-add-rms-norm").out
    assert "add_rms_norm(x, residual, w)" in shown and "stage fused, exact" in shown


def test_the_examples_of_one_pass_are_run(capfd):
    finished = run_command(capfd, "passes", "test", "recognize-rope", "--json")
    assert finished.code == 0
    assert json.loads(finished.out) == {"examples": 3, "failed": []}
    assert "3 examples, 0 failed" in run_command(capfd, "passes", "test", "recognize-rope").out


@pytest.mark.parametrize("arguments", [("show", "no-such"), ("test", "no-such")])
def test_an_unknown_pass_is_an_error_that_lists_the_known(arguments, capfd):
    finished = run_command(capfd, "passes", *arguments)
    assert finished.code == 2
    assert "no-such" in finished.err and "fuse-linears" in finished.err


# --- opt


def test_opt_runs_the_passes_named_and_prints_the_program(traced, tmp_path, capfd):
    out = tmp_path / "out.txt"
    finished = run_command(capfd, "opt", traced, "-p", "canonicalize,recognize-rms-norm", "-o", out)
    assert finished.code == 0, finished.err
    assert out.read_text().startswith("program recognised")
    assert "rms_norm(" in out.read_text() and "rsqrt(" not in out.read_text()
    assert "recognize-rms-norm: 9 matches" in finished.err
    again = run_command(capfd, "opt", out, "-p", "recognize-rms-norm", "--check", "off")
    assert again.out == out.read_text()


def test_opt_prints_around_passes(traced, capfd):
    arguments = ("-p", "canonicalize,recognize-rms-norm", "--check", "structure")
    before = run_command(capfd, "opt", traced, *arguments, "--print-before", "recognize-rms-norm").err
    assert "// before recognize-rms-norm\nprogram canonical" in before and "rsqrt(" in before
    after = run_command(capfd, "opt", traced, *arguments, "--print-after", "all").err
    assert "// after canonicalize" in after and "// after recognize-rms-norm" in after
    changed = run_command(capfd, "opt", traced, *arguments, "--print-diff").err
    assert any(line.startswith("+") and "rms_norm(" in line for line in changed.splitlines())


def test_opt_tells_sites_in_json(traced, capfd):
    finished = run_command(capfd, "opt", traced, "-p", "canonicalize,recognize-rms-norm", "--json")
    first, second = json.loads(finished.out)["passes"]
    assert (first["name"], second["name"]) == ("canonicalize", "recognize-rms-norm")
    assert "model.layers.0.self_attn.q_norm" in second["sites"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-p", "no-such"), "there is no pass 'no-such'"),
        (("-p", "canonicalize", "--print-after", "fuse-linears"), "which does not run"),
        (("--check", "hard"), "--check must be numeric, structure or off"),
        (("--set", "fuse-linears.most=3"), "fuse-linears has no option 'most'"),
    ],
)
def test_opt_refuses_what_it_does_not_know(arguments, said, traced, capfd):
    finished = run_command(capfd, "opt", traced, *arguments)
    assert finished.code == 2
    assert said in finished.err


@pytest.mark.parametrize("text", ["", "program\n", "program traced {}\n", "func forward() -> (x) { return %x }"])
def test_opt_refuses_what_is_no_program(text, tmp_path, capfd):
    file = tmp_path / "broken.txt"
    file.write_text(text)
    finished = run_command(capfd, "opt", file)
    assert finished.code == 2
    assert len(finished.err.splitlines()) == 1


# --- explain


def test_explain_names_every_site_with_its_module(engine, capfd):
    finished = run_command(capfd, "explain", engine, "--pass", "fuse-add-rms-norm")
    assert finished.code == 0, finished.err
    lines = finished.out.splitlines()
    assert lines[0] == "fuse-add-rms-norm (fused, exact): 4 matches, 4 declared by the family"
    assert "  missed   model.layers.0.input_layernorm: %embedding = embedding(...) is not add" in lines


def test_explain_agrees_with_the_manifest(engine, capfd):
    told = json.loads(run_command(capfd, "explain", engine, "--json").out)
    manifest = read_manifest(engine)
    assert [p["name"] for p in told["passes"]] == [p.name for p in manifest.passes]
    for shown, record in zip(told["passes"], manifest.passes, strict=True):
        assert sum(s["matched"] for s in shown["sites"]) == record.matches
        assert sum(not s["matched"] for s in shown["sites"]) == len(record.near_misses)
    assert told["declared"] == manifest.declared_matches


def test_explain_of_an_unknown_pass_lists_those_that_ran(engine, capfd):
    finished = run_command(capfd, "explain", engine, "--pass", "no-such")
    assert finished.code == 2
    assert "--pass must be one of canonicalize" in finished.err


def test_an_engine_of_passes_that_do_otherwise_now_is_not_explained(engine, tmp_path, capfd):
    import shutil

    other = shutil.copytree(engine, tmp_path / "other.engine")

    def edit(data: dict) -> None:
        data["passes"][0]["matches"] += 1

    edit_manifest(other, edit)
    finished = run_command(capfd, "explain", other)
    assert finished.code == 2
    assert "compile it again to explain it" in finished.err
