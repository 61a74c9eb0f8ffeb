"""A pass is a transaction: what is wrong is caught, named and not committed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import fx
from xllmc.compiler.ir.text import print_program
from xllmc.compiler.pipeline import PassError, run, run_pass
from xllmc.passes.api import Numerics, Pass, Report, Rewriter, Stage

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
    "a lost weight": ("rms_norm", lambda r, n: r.emit("rms_norm", n.args[0], n.args[1], eps=0.5)),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_rewrite_that_changes_numbers_is_refused(fault):
    before = program(TEXT, ["w [16]"])
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
