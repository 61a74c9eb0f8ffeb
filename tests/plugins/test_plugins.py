"""A real package, installed by pip, brings a pass, an op and a kernel; and one that does wrong stops the compile."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from xllmc.runtime.artifact.reader import read_manifest

from tests.checkpoints import probe_tokens, reference_logits, relative_difference
from tests.commands import run_command
from tests.engines import load_engine
from tests.plugins.environment import Environment, Mypy, NewEnvironment

HERE = Path(__file__).parent
QUICK = ("--dtype", "fp32", "--isa", "native")
TOKENS = probe_tokens(48)


class Compiled(NamedTuple):
    engine: Path
    summary: dict


@pytest.fixture(scope="module")
def environment(new_environment: NewEnvironment) -> Environment:
    made = new_environment()
    made.install(HERE / "acme")
    return made


@pytest.fixture(scope="module")
def faulty(new_environment: NewEnvironment) -> Environment:
    """``ACME_FAULT`` says what the package there does wrong."""
    made = new_environment()
    made.install(HERE / "faulty")
    return made


@pytest.fixture(scope="module")
def model(checkpoint) -> Path:
    return checkpoint("gemma2")


@pytest.fixture(scope="module")
def compiled(environment: Environment, model: Path) -> Compiled:
    done = environment.run("xllmc", "compile", model, "-o", "with.engine", *QUICK, "--json")
    assert done.code == 0, done.err
    return Compiled(environment.work / "with.engine", json.loads(done.out))


def logits(engine: Path) -> np.ndarray:
    with load_engine(engine) as loaded:
        return loaded.logits(TOKENS)


def test_the_engine_runs_the_plugins_kernel(compiled: Compiled, engine_dir, model: Path):
    source = (compiled.engine / "kernels" / "kernels.cpp").read_text()
    assert "acme::softcap_row<347>" in source
    plan = json.loads((compiled.engine / "plan.json").read_text())
    assert any("acme_softcap" in launch["kernel"] for f in plan["functions"] for launch in f["launches"])
    expected = reference_logits(model, TOKENS)
    assert relative_difference(logits(compiled.engine), expected) < 1e-4
    assert relative_difference(logits(compiled.engine), logits(engine_dir("gemma2", "fp32"))) < 1e-5


def test_the_manifest_names_the_plugin(compiled: Compiled):
    manifest = read_manifest(compiled.engine)
    assert [p.model_dump() for p in manifest.plugins] == [
        {"name": "acme-xllmc", "version": "1.4.0", "passes": {"acme-softcap": 1}, "target": "", "family": "gemma2"}
    ]
    (record,) = [p for p in manifest.passes if p.plugin]
    assert (record.name, record.plugin, record.matches) == ("acme-softcap", "acme-xllmc", 1)
    assert compiled.summary["plugins"][0]["name"] == "acme-xllmc"


def test_the_engine_ships_the_plugins_header_and_is_rebuilt_without_the_plugin(compiled: Compiled, tmp_path, capfd):
    copy = shutil.copytree(compiled.engine, tmp_path / "copy.engine")
    header = copy / "kernels" / "include" / "acme" / "softcap.h"
    assert header.read_text() == (HERE / "acme" / "src" / "acme_xllmc" / "softcap.h").read_text()
    finished = run_command(capfd, "rebuild", copy, "--isa", "native")
    assert finished.code == 0, finished.err
    assert np.array_equal(logits(copy), logits(compiled.engine))


def test_the_plugins_kernel_for_devices(environment: Environment, model: Path):
    done = environment.run("xllmc", "compile", model, "-o", "gpu.engine", "--target", "cuda:sm_90", "--dtype", "fp32")
    assert done.code == 0, done.err
    inspected = environment.run("xllmc", "inspect", "gpu.engine", "--json")
    (kernel,) = [k for k in json.loads(inspected.out)["device_kernels"] if "acme_softcap" in k["name"]]
    assert kernel["registers"] > 0 and kernel["predicted_seconds"]["decode"] > 0
    source = (environment.work / "gpu.engine" / "kernels" / f"{kernel['name']}.py").read_text()
    assert "grown = tl.exp(-2.0 * size)" in source


def test_the_command_line_lists_and_tests_the_pass(environment: Environment):
    # Not the warm command line, once: what a user types.
    listed = environment.run("python", "-m", "xllmc.runtime.cli", "passes", "--json")
    assert listed.code == 0, listed.err
    (one,) = [p for p in json.loads(listed.out)["passes"] if p["name"] == "acme-softcap"]
    assert one["plugin"] == "acme-xllmc 1.4.0"
    assert one["options"] == [{"name": "smallest", "type": "float", "value": 1.0}]
    tested = environment.run("xllmc", "passes", "test", "acme-softcap", "--json")
    assert json.loads(tested.out) == {"examples": 5, "failed": []}
    op = environment.run("xllmc", "ops", "acme_softcap")
    assert "never beyond" in op.out, op.err


def test_plugins_can_be_left_out(environment: Environment, model: Path):
    listed = environment.run("xllmc", "passes", "--no-plugins", "--json")
    assert {p["plugin"].split()[0] for p in json.loads(listed.out)["passes"]} == {"xllmc"}
    wanted = ("--no-plugins", "--set", "acme-softcap.smallest=2")
    done = environment.run("xllmc", "compile", model, "-o", "left-out.engine", *QUICK, *wanted)
    assert (done.code, "there is no pass 'acme-softcap' to configure" in done.err) == (2, True), done.err


def test_explain_shows_where_the_pass_matched(environment: Environment, compiled: Compiled):
    done = environment.run("xllmc", "explain", compiled.engine, "--pass", "acme-softcap")
    first, *sites = done.out.splitlines()
    assert first.startswith("acme-softcap (recognised, reassociating): 1 matches"), done.err
    assert sites == ["  matched  lm_head"]


def test_explain_says_which_plugin_is_missing(new_environment: NewEnvironment, compiled: Compiled):
    done = new_environment().run("xllmc", "explain", compiled.engine)
    assert done.code == 2
    assert "plugin acme-xllmc 1.4.0, but no version of it is installed" in done.err


def test_a_graph_with_the_plugins_op_is_read_where_the_plugin_is(environment: Environment, compiled: Compiled):
    graph = compiled.engine / "graph" / "fused.txt"
    assert "acme_softcap(" in graph.read_text()
    done = environment.run("xllmc", "opt", graph, "-p", "group-loops", "-o", "lowered.txt")
    assert done.code == 0, done.err
    assert "acme_softcap(" in (environment.work / "lowered.txt").read_text()


def test_the_pass_takes_options(environment: Environment, model: Path):
    """The plugin's own family expects a match, so that leaving the cap alone is a fault that says why."""
    done = environment.run("xllmc", "compile", model, "-o", "set.engine", *QUICK, "--set", "acme-softcap.smallest=20")
    assert done.code == 2
    assert "acme-softcap matched 0 of 1 sites (lm_head: its cap 15.0 is below 20.0)" in done.err
    for setting, fault in (
        ("acme-softcap.largest=3", "no option 'largest'; it has smallest"),
        ("acme-softcap.smallest=much", "option smallest of pass acme-softcap: Input should be a valid number"),
    ):
        done = environment.run("xllmc", "passes", "--set", setting)
        assert (done.code, fault in done.err) == (2, True), done.err


FAULTS = {
    "raises": "plugin acme-faulty 2.5: pass faulty-raises failed after model.layers.0.self_attn.q_proj: KeyError: ",
    "types": "plugin acme-faulty 2.5: pass faulty-types made an invalid program: forward: %rms_norm",
    "numbers": "plugin acme-faulty 2.5: pass faulty-numbers (reassociating) changed results at model.",
    "imports": "plugin acme-faulty 2.5 cannot be loaded: acme_faulty:PASSES: TypeError: pass faulty-imports, example 0",
    "order": "pass faulty-order (of acme-faulty 2.5) is to run before fuse-everything, but there is no such pass",
}
REPRODUCED = {"raises": ("linear(",), "types": ("cast(", "add("), "numbers": ("eps=0.001", "eps=1e-06")}
"""What a fault's file must show: of both sides, where there are two."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plugin_that_does_wrong_stops_the_compile(faulty: Environment, model: Path, fault: str):
    out = faulty.work / f"{fault}.engine"
    done = faulty.run("xllmc", "compile", model, "-o", out.name, *QUICK, ACME_FAULT=fault)
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert done.err.startswith(f"error: {FAULTS[fault]}")
    assert not out.exists()
    reproducers = list(faulty.work.glob(f"{fault}.engine*"))
    assert len(reproducers) == (fault in REPRODUCED)
    for file in reproducers:
        assert file.name in done.err
        text = file.read_text()
        assert [shown for shown in (*REPRODUCED[fault], "func forward(") if shown not in text] == []


def test_bisect_finds_the_pass_with_wrong_numbers(faulty: Environment, model: Path):
    done = faulty.run("xllmc", "bisect", model, "--layers", "1", "--json", ACME_FAULT="numbers")
    found = json.loads(done.out)["found"]
    assert (done.code, found["pass_name"]) == (1, "faulty-numbers")
    assert found["where"].startswith("model.")
    assert "eps=0.001" in found["diff"]


def test_mypy_accepts_the_plugin(mypy: Mypy):
    """Named sizes in annotations are types to it."""
    mypy(HERE / "acme" / "src", "-p", "acme_xllmc")
