"""Fusion does not miss silently: a pass that matches less than the family declares stops the compile."""

from typing import Any

import pytest
from xllmc.compiler.pipeline.expected import SHOWN, MissedMatches, check_expected
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.compiler.pipeline.run import PassReport
from xllmc.models.families import FAMILIES
from xllmc.passes.api import Site
from xllmc.runtime.artifact.errors import OptionError, XllmcError

from tests.commands import run_command
from tests.compiler.pipeline.installing import IMPATIENT, Plugins


def report(name: str, matches: int, misses: tuple[str, ...] = (), counts_as: tuple[str, ...] = ()) -> PassReport:
    sites = (*(Site(f"layers.{i}") for i in range(matches)), *(Site(f"layers.{i}", m) for i, m in enumerate(misses)))
    return PassReport(name, "fused", "exact", {}, counts_as, sites, 0, 0, 0.0, 0.0)


def test_as_many_as_declared_or_more_are_enough():
    check_expected({"a": 2, "b": 0}, [report("a", 2), report("b", 3)], "llama")


def test_a_shortfall_quotes_the_near_misses():
    with pytest.raises(MissedMatches) as caught:
        check_expected(
            {"a": 2, "b": 1, "c": 1}, [report("a", 1, ("of bf16",)), report("b", 0), report("c", 1)], "llama"
        )
    assert str(caught.value) == (
        "llama declares more matches than its passes found: a matched 1 of 2 sites (layers.0: of bf16). "
        "b matched 0 of 1 sites (no near misses). Compile with --allow-missed to have the slower engine"
    )
    assert isinstance(caught.value, XllmcError)


def test_many_near_misses_are_counted():
    misses = tuple(f"reason {i}" for i in range(SHOWN + 3))
    with pytest.raises(MissedMatches, match=rf"reason {SHOWN - 1}; and 3 more\)") as caught:
        check_expected({"a": 9}, [report("a", 1, misses)], "llama")
    assert f"reason {SHOWN}" not in str(caught.value)


def test_a_pass_that_takes_anothers_place_counts_as_it():
    reports = [report("a", 1), report("better-a", 2, counts_as=("a", "b"))]
    check_expected({"a": 3, "b": 2}, [*reports, report("b", 0)], "llama")
    with pytest.raises(MissedMatches, match="a matched 3 of 4 sites"):
        check_expected({"a": 4}, reports, "llama")


def test_a_pass_that_runs_several_times_matches_as_often():
    check_expected({"a": 3}, [report("a", 1), report("a", 2)], "llama")
    with pytest.raises(MissedMatches, match=r"a matched 3 of 4 sites \(layers.0: early; layers.0: late\)"):
        check_expected({"a": 4}, [report("a", 1, ("early",)), report("a", 2, ("late",))], "llama")


def test_a_pass_that_was_left_out_is_not_expected():
    check_expected({"a": 3}, [report("b", 1)], "llama", left_out=("a",))


def test_a_pass_that_there_is_not_is_an_error():
    with pytest.raises(OptionError, match="family llama declares 3 matches of pass a, but there is no such pass"):
        check_expected({"a": 3}, [report("b", 1)], "llama")


# --- a compile


@pytest.fixture
def command(checkpoint, tmp_path, monkeypatch) -> list[Any]:
    """A compile of a model whose family, as a plugin has it, expects more than there is."""
    Plugins(tmp_path, monkeypatch).install("acme", IMPATIENT, models="acme:FAMILIES")
    options = ("--isa", "native", "--verify", "off", "--json")
    return ["compile", checkpoint("gpt2"), "-o", tmp_path / "out", *options]


def test_a_shortfall_stops_a_compile_in_one_line(command, tmp_path, capfd):
    done = run_command(capfd, *command)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "fuse-activation matched 2 of 3 sites" in done.err
    assert "recognize-rope matched 0 of 2 sites (no near misses)" in done.err
    assert "--allow-missed" in done.err
    assert not (tmp_path / "out").exists()


def test_what_is_disabled_is_not_missed(command, capfd):
    done = run_command(capfd, *command, "--disable-pass", "fuse-activation")
    assert done.code == 2
    assert "fuse-activation" not in done.err and "recognize-rope matched 0 of 2 sites" in done.err


def test_every_expected_pass_is_there():
    names = {one.name for one in pass_list().passes}
    assert [(f.name, n) for f in FAMILIES for n in f.expected if n not in names] == []
