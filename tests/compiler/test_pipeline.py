"""A pass is a transaction: what is wrong is caught, named and not committed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import fx
from xllmc.compiler.ir.op import Op, Traits
from xllmc.compiler.ir.program import Weight
from xllmc.compiler.ir.text import print_program
from xllmc.compiler.pipeline import PassError, run, run_pass
from xllmc.passes.api import Numerics, Pass, Report, Rewriter, Stage
from xllmc.runtime.artifact.recipe import Recipe

from tests.programs import program

TEXT = """
func forward(%x: f32[T, 16], %r: f32[T, 16]) -> (y) {
  %a: f32[T, 16] = sub(%x, %r)  // model.layers.3
  %n: f32[T, 16] = rms_norm(%a, @w, eps=1e-06)
  %t: f32[T, 1] = mean(%n)
  %y: f32[T, 16] = add(%n, %t)
  return %y
}"""

Change = Callable[[Rewriter, fx.Node], fx.Node]


@dataclass(frozen=True)
class Replace(Pass):
    """Replace every call of one op by what ``change`` makes of it."""

    name: ClassVar[str] = "replace"
    stage: ClassVar[Stage] = "fused"
    numerics: ClassVar[Numerics] = "reassociating"
    op: str
    change: Change

    def run(self, rewriter: Rewriter) -> Report:
        for node in rewriter.calls(self.op):
            rewriter.replace({node: self.change(rewriter.at(node), node)})
        rewriter.erase_dead()
        return Report(matches=1)


WRONG: dict[str, tuple[str, Change]] = {
    "swapped operands": ("sub", lambda r, n: r.emit("sub", n.args[1], n.args[0])),
    "a dropped term": ("sub", lambda r, n: n.args[0]),
    "another op": ("add", lambda r, n: r.emit("sub", *n.args)),
    "a wrong eps, which only small rows show": ("rms_norm", lambda r, n: r.emit("rms_norm", *n.args, eps=1e-5)),
    "a wrong reduction": ("mean", lambda r, n: r.emit("amax", *n.args)),
    "an eps that is far too large": ("rms_norm", lambda r, n: r.emit("rms_norm", *n.args, eps=0.5)),
    "a factor two percent off": ("add", lambda r, n: r.emit("mul", r.emit("add", *n.args), 1.02)),
}


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("fault", WRONG)
def test_a_rewrite_that_changes_numbers_is_refused(fault, dtype):
    before = program(TEXT.replace("f32", dtype), ["w [16]"], dtype)
    text = print_program(before)
    op, change = WRONG[fault]
    with pytest.raises(
        PassError, match=r"pass replace \(reassociating\) changed results at .*relative error"
    ) as caught:
        run_pass(before, Replace(op, change))
    assert " => " in caught.value.reproducer
    assert text in caught.value.reproducer
    assert print_program(before) == text


def test_a_failed_pass_can_be_left_out():
    op, change = WRONG["another op"]
    before = program(TEXT, ["w [16]"])
    after, (report,) = run(before, [Replace(op, change)], skip_failed=True)
    assert print_program(after) == print_program(before)
    assert report.matches == 0 and report.near_misses[0].startswith("skipped: pass replace")


def test_the_site_is_named_by_its_module():
    op, change = WRONG["swapped operands"]
    with pytest.raises(PassError, match=r"model\.layers\.3"):
        run_pass(program(TEXT, ["w [16]"]), Replace(op, change))


def test_a_right_rewrite_passes_and_is_reported():
    twice = Replace("add", lambda r, n: r.emit("add", n.args[1], n.args[0]))
    after, (report,) = run(program(TEXT, ["w [16]"]), [twice])
    assert (report.name, report.matches, report.regions, report.calls) == ("replace", 1, 1, 4)
    assert after.stage == "fused"


@dataclass(frozen=True)
class SwapsParts(Pass):
    """Stacks the weights of each pair of linears, in the wrong order at the last pair only."""

    name: ClassVar[str] = "swaps-parts"
    stage: ClassVar[Stage] = "fused"
    pairs_right: int

    def run(self, rewriter: Rewriter) -> Report:
        linears = rewriter.calls("linear")
        for number, pair in enumerate((linears[:2], linears[2:])):
            names = [n.args[1].target for n in pair]
            ordered = names if number < self.pairs_right else names[::-1]
            recipes = [rewriter.program.weights[n].recipe for n in ordered]
            kind = rewriter.program.weights[names[0]].type.with_shape(16, 16)
            stacked = rewriter.weight(f"stacked.{number}", Weight(kind, Recipe.of("concat", *recipes, axis=0)))
            joined = rewriter.at(pair[0]).emit("linear", pair[0].args[0], stacked, None)
            halves = [rewriter.emit("slice", joined, axis=1, start=s, stop=s + 8) for s in (0, 8)]
            rewriter.replace(dict(zip(pair, halves, strict=True)))
        rewriter.erase_dead()
        return Report(matches=2)


def test_a_fault_in_a_recipe_is_caught_though_an_equal_site_was_right():
    text = """
    func forward(%x: f32[T, 16]) -> (a, b, c, d) {
      %a: f32[T, 8] = linear(%x, @one.a, none)
      %b: f32[T, 8] = linear(%x, @one.b, none)
      %c: f32[T, 8] = linear(%x, @two.a, none)
      %d: f32[T, 8] = linear(%x, @two.b, none)
      return %a, %b, %c, %d
    }"""
    weights = ["one.a [8, 16]", "one.b [8, 16]", "two.a [8, 16]", "two.b [8, 16]"]
    _, report = run_pass(program(text, weights), SwapsParts(pairs_right=2))
    assert report.regions == 1  # the two sites are alike: one comparison serves both
    with pytest.raises(PassError, match="changed results"):
        run_pass(program(text, weights), SwapsParts(pairs_right=1))


@dataclass(frozen=True)
class Raises(Pass):
    name: ClassVar[str] = "raises"
    stage: ClassVar[Stage] = "fused"

    def run(self, rewriter: Rewriter) -> Report:
        return {}["nothing"]


def test_a_pass_that_raises_is_named_and_can_be_left_out():
    before = program(TEXT, ["w [16]"])
    with pytest.raises(PassError, match="pass raises failed: KeyError"):
        run_pass(before, Raises())
    _, (report,) = run(before, [Raises()], skip_failed=True)
    assert report.near_misses[0].startswith("skipped: pass raises failed")


def test_a_replacement_that_cannot_be_run_is_named_by_pass_and_site():
    def reference(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such computation")

    broken = Op("broken", reference, Traits(), {"f32": 0.0}, infer=lambda x: x)
    with pytest.raises(PassError, match=r"pass replace put something at model\.layers\.3 that cannot be run: no such"):
        run_pass(program(TEXT, ["w [16]"]), Replace("sub", lambda r, n: r.emit(broken, n.args[0])))


@dataclass(frozen=True)
class Breaks(Pass):
    """Leaves a value with a wrong type behind."""

    name: ClassVar[str] = "breaks"
    stage: ClassVar[Stage] = "fused"

    def run(self, rewriter: Rewriter) -> Report:
        first = rewriter.calls("sub")[0]
        first.meta["type"] = first.meta["type"].with_dtype("bf16")
        return Report()


def test_an_invalid_program_is_refused_by_the_pass_that_made_it():
    before = program(TEXT, ["w [16]"])
    with pytest.raises(PassError, match="pass breaks made an invalid program: forward: %a is recorded as bf16"):
        run_pass(before, Breaks())
    run(before, [])


def test_weights_that_nothing_reads_any_more_are_dropped():
    direct = Replace("rms_norm", lambda r, n: r.emit("mul", n.args[0], 1.0))
    with pytest.raises(PassError):
        run_pass(program(TEXT, ["w [16]"]), direct)
    kept, _ = run(program(TEXT, ["w [16]", "unused [4]"]), [Replace("add", lambda r, n: r.emit("add", *n.args))])
    assert list(kept.weights) == ["w"]
