"""Passes, targets and families of installed packages are found; what is wrong with one is said by its name."""

from typing import Any

import pytest
from xllmc.compiler.driver import family_named
from xllmc.compiler.pipeline.listing import PassSettings, pass_list, target_named
from xllmc.compiler.pipeline.plugins import installed_passes
from xllmc.models.family import Family
from xllmc.passes.api import STAGES
from xllmc.passes.builtin import PASSES
from xllmc.runtime.artifact.errors import OptionError

from tests.commands import run_command
from tests.compiler.pipeline.installing import PASS, Plugins

BROKEN = "raise ImportError('no such driver')\n"
TARGET = """
from xllmc.codegen.cpu.target import CpuTarget


class Other(CpuTarget):
    name = "{name}"

    def passes(self):
        return ()
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch) -> Plugins:
    return Plugins(tmp_path, monkeypatch)


def own_names() -> list[str]:
    return [one.name for one in pass_list(settings=PassSettings(plugins=False)).passes]


def test_our_own_passes_are_found_the_same_way():
    assert [found for found, origin in installed_passes() if not origin.plugin] == list(PASSES)
    assert {origin.name for origin in pass_list().origins.values()} == {"xllmc"}


def test_a_module_brings_every_pass_defined_in_it(plugins):
    before = own_names()
    plugins.install("acme", PASS, passes="acme")
    listed = pass_list()
    names = [one.name for one in listed.passes]
    assert [n for n in names if n not in before] == ["double-relu", "count-calls"]
    assert [n for n in names if n in before] == before
    assert names.index("recognize-gelu") < names.index("double-relu") < names.index("fuse-gated-linear")
    stages = [STAGES.index(one.stage) for one in listed.passes if not one.each_stage]
    assert stages == sorted(stages)
    assert str(listed.origins["double-relu"]) == "acme 1.0" and listed.origins["double-relu"].plugin


@pytest.mark.parametrize("value", ["acme:DoubleRelu", "acme:ALL", "acme:LIST"])
def test_an_entry_may_name_one_pass_or_several(plugins, value):
    plugins.install("acme", PASS + "\nALL = (DoubleRelu,)\nLIST = [DoubleRelu]\n", passes=value)
    assert "double-relu" in [one.name for one in pass_list().passes]
    assert "count-calls" not in [one.name for one in pass_list().passes]


def test_what_a_module_only_imports_is_not_its_own(plugins):
    plugins.install("acme", "from xllmc.passes.canonicalize import Canonicalize\n" + PASS, passes="acme")
    assert len([one for one, _ in installed_passes() if one.name == "canonicalize"]) == 1


def test_plugins_may_be_left_out(plugins):
    before = own_names()
    plugins.install("acme", PASS, passes="acme")
    plugins.install("sorry", BROKEN, passes="sorry")
    assert own_names() == before


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        (BROKEN, "sorry", "sorry: ImportError: no such driver"),
        ("import nothing_of_this_name\n", "sorry", "sorry: ModuleNotFoundError: No module named 'nothing_of"),
        ("x = 1\n", "sorry:PASSES", "sorry:PASSES: AttributeError: module 'sorry' has no attribute 'PASSES'"),
        ("def (:\n", "sorry", "sorry: SyntaxError: "),
        (PASS.replace('x="f32[T, 4]"', 'x="f32[T, 4]", matches=2'), "sorry", "sorry: TypeError: pass double-relu, ex"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(plugins, source, value, reason):
    plugins.install("sorry", source, "2.5", passes=value)
    with pytest.raises(OptionError, match=r"plugin sorry 2\.5 cannot be loaded: ") as caught:
        pass_list()
    assert reason in str(caught.value)
    assert "repair or uninstall it, or compile with --no-plugins" in str(caught.value)


def test_a_broken_plugin_stops_a_compile_in_one_line(plugins, checkpoint, tmp_path, capfd):
    plugins.install("sorry", BROKEN, passes="sorry")
    done = run_command(capfd, "compile", checkpoint("gpt2"), "-o", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("error: plugin sorry 1.0 cannot be loaded: sorry: ImportError: no such driver")
    assert not (tmp_path / "out").exists()


def test_two_passes_of_one_name_are_refused_with_both_their_homes(plugins):
    plugins.install("acme", PASS, passes="acme")
    plugins.install("bcme", PASS, passes="bcme")
    with pytest.raises(OptionError, match=r"two passes are named double-relu, of acme 1\.0 and bcme 1\.0"):
        pass_list()


def test_a_plugin_that_runs_after_nothing_known_is_refused(plugins):
    plugins.install("acme", PASS.replace("recognize-gelu", "recognize-swish"), passes="acme")
    with pytest.raises(OptionError, match=r"pass double-relu \(of acme 1.0\) is to run after recognize-swish, but"):
        pass_list()


def test_an_option_of_a_plugins_pass_is_set(plugins):
    plugins.install("acme", PASS, passes="acme")
    listed = pass_list(settings=PassSettings({"double-relu": {"most": 7, "words": ["x", "y"]}}))
    (one,) = listed.named(["double-relu"])
    assert one.options == {"most": 7, "words": ("x", "y")}


# --- targets


def test_a_target_brings_its_own_passes(plugins):
    plugins.install("acme", TARGET.format(name="tpu"), targets="acme:Other")
    target, origin = target_named("tpu")
    assert (target.name, str(origin)) == ("tpu", "acme 1.0")
    names = [one.name for one in pass_list("tpu").passes]
    assert "canonicalize" in names and "pack-weights" not in names


def test_two_targets_of_one_name_are_refused(plugins):
    plugins.install("acme", TARGET.format(name="cpu"), targets="acme:Other")
    with pytest.raises(OptionError, match=r"target cpu is brought by xllmc .* and by acme 1.0"):
        target_named("cpu")


def test_an_unknown_target_is_refused_with_those_there_are(plugins):
    plugins.install("acme", TARGET.format(name="tpu"), targets="acme:Other")
    with pytest.raises(
        OptionError,
        match="--target must be one of ascend:910b, cpu, cuda:sm_80, cuda:sm_89, cuda:sm_90, tpu, got 'gpu'",
    ):
        pass_list("gpu")


# --- families


@pytest.mark.parametrize("value", ["acme:FAMILY", "acme:FAMILIES"])
def test_a_plugin_brings_families_and_may_replace_ours(plugins, value):
    source = """
    from xllmc.models.family import Family

    FAMILY = Family("llama", {"fuse-linears": "3"})
    FAMILIES = (FAMILY, Family("acme", {}))
    """
    assert family_named("llama")[0].expected["fuse-linears"] == "layers"
    plugins.install("acme", source, models=value)
    assert family_named("llama")[0] == Family("llama", {"fuse-linears": "3"})
    assert family_named("unheard-of")[0] == Family("unheard-of")


def test_two_plugins_cannot_bring_one_family(plugins):
    source = 'from xllmc.models.family import Family\n\nFAMILY = Family("llama")\n'
    plugins.install("acme", source, models="acme:FAMILY")
    plugins.install("apex", source, models="apex:FAMILY")
    with pytest.raises(OptionError, match=r"family llama is brought by acme .* and by apex "):
        family_named("llama")


# --- ours


def test_without_our_own_entry_points_the_cure_is_told(monkeypatch):
    def none(**wanted: Any) -> tuple[()]:
        return ()

    monkeypatch.setattr("xllmc.compiler.pipeline.plugins.entry_points", none)
    with pytest.raises(OptionError, match=r"xllmc's own entry points of xllmc\.passes are missing; install xllmc"):
        pass_list()
