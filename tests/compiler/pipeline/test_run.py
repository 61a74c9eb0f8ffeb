"""A pass is a transaction: what is wrong is caught, named and not committed."""

from collections.abc import Callable

import pytest
import torch
from torch import fx
from xllmc.compiler.ir.op import Op, Traits
from xllmc.compiler.ir.program import Weight
from xllmc.compiler.ir.text import print_program
from xllmc.compiler.pipeline.run import PassError, RunOptions, run, run_pass
from xllmc.passes.api import Numerics, Pass, Rewriter, graph_pass
from xllmc.runtime.artifact.recipe import Recipe

from tests.programs import program, statements

TEXT = """
func forward(%x: f32[T, 16], %r: f32[T, 16]) -> (y) {
  %a: f32[T, 16] = sub(%x, %r)  // model.layers.3
  %n: f32[T, 16] = rms_norm(%a, @w, eps=1e-06)
  %t: f32[T, 1] = mean(%n)
  %y: f32[T, 16] = add(%n, %t)
  return %y
}"""
SKIPPING = RunOptions(skip_failed=True)

Change = Callable[[Rewriter, fx.Node], fx.Node]


def replacing(op: str, change: Change, numerics: Numerics = "reassociating", tolerance: float = 0.0) -> Pass:
    """A pass that replaces every call of ``op`` by what ``change`` makes of it."""

    @graph_pass(stage="fused", numerics=numerics, tolerance=tolerance)
    def replace(rewriter: Rewriter) -> None:
        """Every call of the op becomes another."""
        for node in rewriter.calls(op):
            rewriter.replace({node: change(rewriter.at(node), node)})
        rewriter.erase_dead()

    return replace()


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
    with pytest.raises(
        PassError, match=r"pass replace \(reassociating\) changed results at .*relative error"
    ) as caught:
        run_pass(before, replacing(*WRONG[fault]))
    assert " => " in caught.value.reproducer
    assert text in caught.value.reproducer
    assert print_program(before) == text


def test_a_lossy_pass_may_be_off_by_its_tolerance_and_no_more():
    before = program(TEXT, ["w [16]"])
    change = WRONG["a factor two percent off"]
    _, report = run_pass(before, replacing(*change, "lossy", 0.03))
    assert report.regions == 1
    with pytest.raises(PassError, match=r"pass replace \(lossy\) changed results at .*relative error 0\.02.*allowed"):
        run_pass(before, replacing(*change, "lossy", 0.01))


def test_what_is_exact_may_not_round_elsewhere():
    before = program(TEXT, ["w [16]"])
    change: tuple[str, Change] = ("sub", lambda r, n: r.emit("add", r.emit("add", n.args[0], 1.0), r.emit(
        "sub", r.emit("neg", n.args[1]), 1.0)))  # fmt: skip
    with pytest.raises(PassError, match=r"pass replace \(exact\) changed results"):
        run_pass(before, replacing(*change, "exact"))


@pytest.mark.parametrize("verification", ["structure", "off"])
def test_numbers_are_compared_only_where_asked(verification):
    before = program(TEXT, ["w [16]"])
    changed, report = run_pass(before, replacing(*WRONG["another op"]), RunOptions(verification))
    assert (report.matches, report.regions) == (1, 0)
    assert any("sub(%n, %t)" in line for line in statements(changed))


def test_a_failed_pass_can_be_left_out():
    before = program(TEXT, ["w [16]"])
    after, (report,) = run(before, [replacing(*WRONG["another op"])], SKIPPING)
    assert print_program(after) == print_program(before)
    assert report.matches == 0 and report.near_misses[0].startswith("skipped: pass replace")
    assert report.skipped.startswith("pass replace (reassociating) changed results")


def test_the_site_is_named_by_its_module():
    with pytest.raises(PassError, match=r"model\.layers\.3"):
        run_pass(program(TEXT, ["w [16]"]), replacing(*WRONG["swapped operands"]))


def test_a_right_rewrite_passes_and_is_reported():
    twice = replacing("add", lambda r, n: r.emit("add", n.args[1], n.args[0]))
    after, (report,) = run(program(TEXT, ["w [16]"]), [twice])
    assert (report.name, report.matches, report.regions, report.calls) == ("replace", 1, 1, 4)
    assert after.stage == "fused"


def test_each_report_is_heard_with_the_program_it_left():
    heard = []
    identity = replacing("sub", lambda r, n: r.emit("sub", *n.args))
    run(program(TEXT, ["w [16]"]), [identity, identity], after=lambda *one: heard.append(one))
    assert [(report.name, after.stage) for report, after in heard] == [("replace", "fused")] * 2


def swapping(pairs_right: int) -> Pass:
    """Stacks the weights of each pair of linears, in the wrong order from pair ``pairs_right`` on."""

    @graph_pass(stage="fused")
    def swaps_parts(rewriter: Rewriter) -> None:
        """Two linears become one."""
        linears = rewriter.calls("linear")
        for number, pair in enumerate((linears[:2], linears[2:])):
            names = [n.args[1].target for n in pair]
            ordered = names if number < pairs_right else names[::-1]
            recipes = [rewriter.program.weights[n].recipe for n in ordered]
            kind = rewriter.program.weights[names[0]].type.with_shape(16, 16)
            stacked = rewriter.weight(f"stacked.{number}", Weight(kind, Recipe.of("concat", *recipes, axis=0)))
            joined = rewriter.at(pair[0]).emit("linear", pair[0].args[0], stacked, None)
            halves = [rewriter.emit("slice", joined, axis=1, start=s, stop=s + 8) for s in (0, 8)]
            rewriter.replace(dict(zip(pair, halves, strict=True)))
        rewriter.erase_dead()

    return swaps_parts()


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
    _, report = run_pass(program(text, weights), swapping(pairs_right=2))
    assert (report.matches, report.regions) == (2, 1)  # the sites are alike: one comparison serves both
    with pytest.raises(PassError, match="changed results"):
        run_pass(program(text, weights), swapping(pairs_right=1))


@graph_pass(stage="fused")
def raises(rewriter: Rewriter) -> None:
    """Nothing, for it raises."""
    {}["nothing"]


def test_a_pass_that_raises_is_named_and_can_be_left_out():
    before = program(TEXT, ["w [16]"])
    with pytest.raises(PassError, match="pass raises failed: KeyError"):
        run_pass(before, raises())
    _, (report,) = run(before, [raises()], SKIPPING)
    assert report.near_misses[0].startswith("skipped: pass raises failed")


def test_a_pass_that_raises_later_is_placed():
    def change(rewriter: Rewriter, node: fx.Node) -> fx.Node:
        if node.name == "y":
            raise RuntimeError("enough")
        return rewriter.emit("add", *node.args)

    text = TEXT.replace("sub(", "add(")
    with pytest.raises(PassError, match=r"pass replace failed after model\.layers\.3: RuntimeError: enough"):
        run_pass(program(text, ["w [16]"]), replacing("add", change))


def test_a_replacement_that_cannot_be_run_is_named_by_pass_and_site():
    def reference(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such computation")

    broken = Op("broken", reference, Traits(), {"f32": 0.0}, infer=lambda x: x)
    with pytest.raises(PassError, match=r"pass replace put something at model\.layers\.3 that cannot be run: no such"):
        run_pass(program(TEXT, ["w [16]"]), replacing("sub", lambda r, n: r.emit(broken, n.args[0])))


@graph_pass(stage="fused")
def breaks(rewriter: Rewriter) -> None:
    """Leaves a value with a wrong type behind."""
    first = rewriter.calls("sub")[0]
    new = rewriter.at(first).emit("sub", *first.args)
    new.meta["type"] = new.meta["type"].with_dtype("bf16")
    rewriter.replace({first: new})


def test_an_invalid_program_is_refused_by_the_pass_that_made_it():
    before = program(TEXT, ["w [16]"])
    with pytest.raises(PassError, match="pass breaks made an invalid program: forward: %sub is recorded as bf16"):
        run_pass(before, breaks())
    run(before, [])


def by_attribute(rewriter: Rewriter) -> None:
    (norm,) = rewriter.calls("rms_norm")
    norm.kwargs = {"eps": 0.1}


def by_operand(rewriter: Rewriter) -> None:
    first = rewriter.calls("sub")[0]
    first.args = first.args[::-1]


def by_output(rewriter: Rewriter) -> None:
    output = rewriter.function.output
    new = rewriter.at(output).emit("neg", rewriter.function.outputs[0])
    output.replace_input_with(rewriter.function.outputs[0], new)


def by_weight(rewriter: Rewriter) -> None:
    weight = rewriter.program.weights["w"]
    doubled = Recipe.of("add_scalar", weight.recipe, value=1.0)
    rewriter.program.weights["w"] = Weight(weight.type, doubled)


@pytest.mark.parametrize("change", [by_attribute, by_operand, by_output, by_weight])
def test_a_change_that_no_check_would_see_is_refused(change):
    """Only what goes through ``replace`` is compared with what stood there."""
    change.__doc__ = "Changes the program behind the rewriter's back."
    sly = graph_pass(stage="fused", name="sly")(change)
    with pytest.raises(PassError, match=r"pass sly changed the program outside of rewriter\.replace"):
        run_pass(program(TEXT, ["w [16]"]), sly())


def test_weights_that_nothing_reads_any_more_are_dropped():
    direct = replacing("rms_norm", lambda r, n: r.emit("mul", n.args[0], 1.0))
    with pytest.raises(PassError):
        run_pass(program(TEXT, ["w [16]"]), direct)
    again = replacing("add", lambda r, n: r.emit("add", *n.args))
    kept, _ = run(program(TEXT, ["w [16]", "unused [4]"]), [again])
    assert list(kept.weights) == ["w"]


ADDS = """
func forward(%x: f32[T, 4]) -> (y) {
  %a: f32[T, 4] = add(%x, 1.0)
  %b: f32[T, 4] = add(%a, 2.0)
  %c: f32[T, 4] = add(%b, 3.0)
  return %c
}"""


@pytest.mark.parametrize("limit", range(5))
def test_a_pass_can_be_run_for_its_first_sites_alone(limit):
    one = replacing("add", lambda r, n: r.emit("sub", n.args[0], -n.args[1]))
    changed, report = run_pass(program(ADDS), one, limit=limit)
    assert report.matches == min(limit, 3)
    assert [line.split(" = ")[1].split("(")[0] for line in statements(changed)[:-1]] == [
        "sub" if number < limit else "add" for number in range(3)
    ]


@pytest.mark.parametrize("limit", [0, 1])
def test_a_pass_stopped_at_a_change_of_state_leaves_no_half_of_it(limit):
    text = """
    func forward(%k: f32[T, 2, 4], %kv: paged<0>f32[2, 4, 4], %slots: i32[T]) -> (k) {
      %a: paged<0>f32[2, 4, 4] = kv_write(%kv, %k, %k, %slots)
      %b: paged<0>f32[2, 4, 4] = kv_write(%a, %k, %k, %slots)
      %y: f32[T, 2, 4] = exp(%k)
      return %y
    }"""
    again = replacing("kv_write", lambda r, n: r.emit("kv_write", *n.args))
    changed, report = run_pass(program(text), again, limit=limit)
    assert report.matches == limit
    assert sum("kv_write" in line for line in statements(changed)) == 2
