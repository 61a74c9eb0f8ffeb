"""The op reference says of every op what the registry does, and the committed copy is up to date."""

import inspect
import json

import pytest
from xllmc.compiler.ir.op import Op, Traits
from xllmc.compiler.op_pages import reference, wrapped_signature
from xllmc.compiler.op_reference import entries, entry, entry_named, trait_docs
from xllmc.compiler.ops import OPS

from tests.commands import run_command
from tests.project.sources import ROOT

REFERENCE = ROOT / "compiler" / "ops" / "REFERENCE.md"


def test_the_committed_reference_is_what_the_registry_says():
    assert REFERENCE.read_text() == reference(), (
        "the op set changed: run `xllmc ops --markdown > compiler/ops/REFERENCE.md`"
    )


def test_the_command_prints_the_committed_reference(capfd):
    assert run_command(capfd, "ops", "--markdown") == (0, REFERENCE.read_text(), "")


def test_the_list_has_every_op_with_its_operands(capfd):
    done = run_command(capfd, "ops")
    assert done.code == 0
    first_words = {line.split("(")[0].strip() for line in done.out.splitlines()}
    assert OPS.keys() <= first_words
    assert "rms_norm(x, weight)" in done.out and "add(a, b)" in done.out and "neg(x)" in done.out


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_documented(name: str, capfd):
    e = entry_named(name)
    assert e.type_rule and e.cost_rule and e.targets
    assert e.doc and e.doc == inspect.cleandoc(OPS[name].doc)
    for attribute in e.attributes:
        assert attribute.name in e.doc, f"the docstring of {name} does not speak of its attribute {attribute.name}"
    if OPS[name].traits.pointwise:
        return
    for operand in e.operands[1:]:
        plain = operand.name.lstrip("*")
        documented = plain in e.doc or plain in (inspect.getdoc(inspect.getmodule(OPS[name].infer)) or "")
        assert documented, f"the docstring of {name} does not speak of its operand {plain}"


@pytest.mark.parametrize("name", ["linear", "add", "sample", "kv_write"])
def test_one_op_is_shown_in_full(name: str, capfd):
    done = run_command(capfd, "ops", name)
    e = entry_named(name)
    assert done.code == 0
    for shown in (*wrapped_signature(e), *e.doc.splitlines(), *e.traits, e.module, "types and cost", "cpu"):
        assert shown in done.out


def test_a_signature_says_types_and_defaults():
    assert entry_named("rms_norm").signature == "rms_norm(x: Tensor, weight: Tensor, *, eps: float) -> Tensor"
    assert entry_named("add").signature == "add(a: Tensor, b: Tensor | float) -> Tensor"
    assert entry_named("concat").signature == "concat(*tensors: Tensor, axis: int) -> Tensor"
    assert "    softcap: float = 0.0," in wrapped_signature(entry_named("paged_attention"))
    assert entry_named("kv_write").traits == ("same_bits", "mutates state")


def test_targets_are_those_that_have_a_kernel():
    for e in entries():
        assert (e.targets.get("cpu") == "kernel") == ("cpu" in OPS[e.name].kernels)
    assert entry_named("exp").targets == {"cpu": "generated loop", "triton": "generated loop"}
    assert entry_named("reshape").targets == {"cpu": "no code", "triton": "no code"}


def test_an_op_that_nobody_computes_says_so():
    def scan(x: int) -> int:
        """Nothing yet."""
        return x

    e = entry(Op("scan", scan, Traits(), {"f32": 0.0}, doc=scan.__doc__))
    assert e.targets == {} and not e.type_rule and not e.cost_rule


def test_every_trait_is_explained():
    assert trait_docs().keys() == Traits.__dataclass_fields__.keys()


def test_json_holds_what_the_pages_do(capfd):
    listed = json.loads(run_command(capfd, "ops", "--json").out)
    assert [op["name"] for op in listed] == [e.name for e in entries()]
    one = json.loads(run_command(capfd, "ops", "linear", "--json").out)
    assert one in listed
    assert {"name": "gated", "type": "int", "default": "0"} in one["attributes"]
    assert one["tolerance"]["bf16"] == 2**-7


def test_an_unknown_op_ends_with_2(capfd):
    done = run_command(capfd, "ops", "rms_nrom")
    assert done.code == 2 and done.out == "" and "did you mean rms_norm?" in done.err


def test_markdown_is_of_all_ops(capfd):
    assert run_command(capfd, "ops", "linear", "--markdown").code == 2
