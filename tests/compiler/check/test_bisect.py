"""``bisect`` finds what the checks would have found, with the checks off: the pass, and the site."""

import json

import pytest
from xllmc.compiler.check.bisect import bisect
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.passes.api import Rewriter, graph_pass

from tests.commands import run_command
from tests.mutations.planted import sample_mutants
from tests.programs import program

TEXT = """
func forward(%x: f32[T, 16], %y: f32[T, 16]) -> (z) {
  %a: f32[T, 16] = sub(%x, %y)  // model.layers.0
  %b: f32[T, 16] = sub(%a, %y)  // model.layers.1
  %z: f32[T, 16] = sub(%y, %b)  // model.layers.2
  return %z
}"""


@graph_pass(stage="fused")
class Harmless:
    """Writes every subtraction again."""

    def run(self, rewriter: Rewriter) -> None:
        for node in rewriter.calls("sub"):
            rewriter.replace({node: rewriter.at(node).emit("sub", *node.args)})
        rewriter.erase_dead()


@graph_pass(stage="fused")
class WrongAtSecond:
    """The same, with operands exchanged at the second site."""

    def run(self, rewriter: Rewriter) -> None:
        for number, node in enumerate(rewriter.calls("sub")):
            operands = node.args[::-1] if number == 1 else node.args
            rewriter.replace({node: rewriter.at(node).emit("sub", *operands)})
        rewriter.erase_dead()


@graph_pass(stage="fused")
class Raises:
    """Fails."""

    def run(self, rewriter: Rewriter) -> None:
        raise LookupError("nothing there")


def test_the_pass_and_the_site_are_named():
    found = bisect(program(TEXT), [Harmless(), WrongAtSecond(), Harmless()])
    assert found is not None
    assert (found.pass_name, found.position, found.site, found.where) == ("wrong-at-second", 1, 2, "model.layers.1")
    assert "results differ by" in found.reason
    assert any(line.startswith("+") and "sub(" in line for line in found.diff.splitlines())


def test_passes_that_change_nothing_are_not_accused():
    assert bisect(program(TEXT), [Harmless(), Harmless()]) is None


def test_a_pass_that_raises_is_the_one():
    found = bisect(program(TEXT), [Harmless(), Raises(), Harmless()])
    assert found is not None
    assert (found.pass_name, found.position, found.site) == ("raises", 1, None)
    assert "nothing there" in found.reason


@graph_pass(stage="fused")
class LeavesWrongTypes:
    """Leaves a value of a wrong type behind, which is noticed by whoever comes next."""

    def run(self, rewriter: Rewriter) -> None:
        node = rewriter.calls("sub")[0]
        rewriter.matched(node)
        node.meta["type"] = node.meta["type"].with_dtype("bf16")


@graph_pass(stage="fused")
class Minds:
    """Fails on a sum of two dtypes, which is not its doing."""

    def run(self, rewriter: Rewriter) -> None:
        first = rewriter.calls("sub")[0]
        rewriter.at(rewriter.function.output).emit("sub", first, rewriter.function.inputs[0])


def test_a_pass_that_fails_on_what_another_left_is_not_accused():
    found = bisect(program(TEXT), [Harmless(), LeavesWrongTypes(), Minds()])
    assert found is not None
    assert (found.pass_name, found.position) == ("leaves-wrong-types", 1)


def test_ten_sampled_mutants_are_found_by_pass_and_site():
    planted = sample_mutants(10)
    assert len(planted) == 10
    for fault in planted:
        found = bisect(fault.program, fault.passes)
        assert found is not None, fault.what
        assert (found.pass_name, found.position, found.site) == (fault.pass_name, fault.position, fault.site), (
            fault.what
        )


@pytest.mark.parametrize("layers", [1, 2])
def test_the_command_acquits_xllmcs_own_passes(layers, checkpoint, capfd):
    arguments = ("bisect", checkpoint("gemma2"), "--layers", layers)
    finished = run_command(capfd, *arguments, "--json")
    assert finished.code == 0, finished.err
    assert json.loads(finished.out) == {"found": None}
    assert f"{len(pass_list().passes)} passes, and none changes" in run_command(capfd, *arguments).out


def test_more_layers_than_there_are_is_an_error(checkpoint, capfd):
    finished = run_command(capfd, "bisect", checkpoint("llama"), "--layers", 99)
    assert finished.code == 2
    assert "--layers must be at most" in finished.err
