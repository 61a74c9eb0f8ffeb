"""What stands on the page: graphs that unpack to the programs, sources, lifetimes; and a file that is whole."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from xllmc.compiler.commands.explain_command import steps
from xllmc.compiler.pipeline.replay import read_traced, replay
from xllmc.compiler.report.arena import timeline
from xllmc.compiler.report.data import Report, make_report
from xllmc.compiler.report.graphs import Graphs
from xllmc.compiler.report.kernels import definition, kernels, library_of, op_of_value, read_sources
from xllmc.compiler.report.page import embedded, render, write_report
from xllmc.runtime.artifact.reader import read_manifest, read_plan
from xllmc.runtime.artifact.schema import BufferEntry, FunctionPlan, Launch, Plan, Pointer


@pytest.fixture(scope="module")
def gathered(engine_dir) -> tuple[Path, Report]:
    engine = engine_dir("qwen3", "bf16")
    manifest, plan = read_manifest(engine), read_plan(engine)
    ran = steps(replay(engine))
    sources = read_sources(engine, manifest)
    return engine, make_report("tiny", manifest, plan, read_traced(engine, manifest), ran, sources, {})


def rows(graphs: Graphs, step: int) -> list[int]:
    runs = graphs.programs[step]["forward"]
    return [row for first, count in zip(runs[::2], runs[1::2], strict=True) for row in range(first, first + count)]


def test_graphs_unpack_to_the_statements_of_the_engine(gathered):
    engine, report = gathered
    graphs, columns = report.graphs, report.graphs.statements
    last = rows(graphs, len(graphs.programs) - 1)
    text = (engine / "graph" / "lowered.txt").read_text()
    shipped = re.findall(r"^  %([\w.]+): (.+?) = (\w+)\(.*?(?:  // (.*))?$", text, re.MULTILINE)
    unpacked = [
        tuple(graphs.strings[column[row]] for column in (columns.name, columns.type, columns.op, columns.where))
        for row in last[:-1]
    ]
    assert unpacked == shipped
    assert graphs.strings[columns.op[last[-1]]] == "return"


def test_what_a_pass_leaves_alone_is_stored_once(gathered):
    _, report = gathered
    everything = sum(len(rows(report.graphs, step)) for step in range(len(report.graphs.programs)))
    assert len(report.graphs.statements.name) < everything / 3


def test_passes_say_what_they_did(gathered):
    _, report = gathered
    norms = next(p for p in report.passes if p.name == "recognize-rms-norm")
    assert norms.matches == len(norms.sites) == 9
    assert "model.layers.0.input_layernorm" in norms.sites
    assert norms.after < norms.before
    assert [p.before for p in report.passes[1:]] == [p.after for p in report.passes[:-1]]
    assert any(reason for p in report.passes for _, reason in p.near_misses)


def test_every_kernel_has_its_source_and_the_header_behind_it(gathered):
    _, report = gathered
    for kernel in report.kernels:
        assert re.search(rf"\b{kernel.name}\(", kernel.source), kernel.name
        assert kernel.source.endswith("}")
        assert kernel.library in report.libraries, kernel.name
        assert kernel.op in report.graphs.categories, kernel.name
    attention = next(k for k in report.kernels if k.op == "paged_attention")
    assert attention.origins == ("model.layers.*.self_attn",)
    assert attention.launches == {"forward": 2}


def test_buffers_alive_together_have_places_of_their_own(gathered):
    _, report = gathered
    for line in report.memory.timelines:
        for i, one in enumerate(line.buffers):
            assert one.offset + one.bytes <= report.memory.arenas[one.arena]
            for other in line.buffers[:i]:
                if one.arena == other.arena and one.first <= other.last and other.first <= one.last:
                    apart = one.offset + one.bytes <= other.offset or other.offset + other.bytes <= one.offset
                    assert apart, f"{one.name} and {other.name}"


def test_stored_weights_add_up(gathered):
    engine, report = gathered
    stored = sum(w.bytes for w in report.memory.weights)
    assert 0 < stored <= (engine / "weights.safetensors").stat().st_size


def test_a_buffer_lives_from_its_first_to_its_last_launch():
    def launch(*names: str) -> Launch:
        return Launch(kernel="k", operands=tuple(Pointer(kind="buffer", name=n) for n in names), origin="m:v")

    buffers = tuple(
        BufferEntry(name=f"f:{n}", scale="T", offset=64 * i, bytes=64) for i, n in enumerate(("a", "b", "c"))
    )
    launches = (launch("f:a"), launch("f:a", "f:b"), launch("f:b", "f:c"), launch("f:c"))
    function = FunctionPlan(name="f", inputs=(), outputs={"out": "f:c"}, launches=launches)
    line = timeline(function, Plan(arenas={"T": 192}, buffers=buffers, functions=(function,)))
    assert [(b.name, b.first, b.last, b.result) for b in line.buffers] == [
        ("f:a", 0, 1, False),
        ("f:b", 1, 2, False),
        ("f:c", 0, 3, True),
    ]


SOURCE = """\
// 2 launches, such as model.layers.0
XLLMC_EXPORT void xk_scale_8(const xllmc_arg* a, const xllmc_worker* worker) {
    if (a) {
        scale<bf16, 8>(a[0].p, *worker);
    }
}

XLLMC_EXPORT void xk_scale(const xllmc_arg* a, const xllmc_worker* worker) {
    other(a[0].p);
}
"""
HEADER = "#pragma once\ntemplate <class T, int N>\nvoid scale(void* x, const xllmc_worker& worker) {}\n"


def test_a_kernels_definition_is_cut_out_whole():
    assert definition(SOURCE, "xk_scale_8") == SOURCE[: SOURCE.index("\n\n")]
    assert definition(SOURCE, "xk_scale").startswith("XLLMC_EXPORT void xk_scale(")
    assert definition(SOURCE, "xk_missing") == ""


def test_a_kernels_header_is_the_one_that_defines_what_it_calls():
    sources = {"kernels/kernels.cpp": SOURCE, "kernels/include/scale.h": HEADER}
    assert library_of(definition(SOURCE, "xk_scale_8"), sources) == "kernels/include/scale.h"
    assert library_of(definition(SOURCE, "xk_scale"), sources) == ""


def test_a_kernel_without_source_or_cost_still_has_its_row():
    function = FunctionPlan(
        name="f", inputs=(), outputs={}, launches=(Launch(kernel="k", operands=(), origin="sample"),)
    )
    plan = Plan(arenas={}, buffers=(), functions=(function,))
    (kernel,) = kernels(plan, {}, {"decode": {"other": (1.0, None)}})
    assert (kernel.source, kernel.library, kernel.costs, kernel.origins) == ("", "", {}, ("sample",))


@pytest.mark.parametrize(
    ("name", "op"), [("linear_48", "linear"), ("add_rms_norm_9.1", "add_rms_norm"), ("pow", "pow")]
)
def test_a_value_is_named_for_its_op(name: str, op: str):
    assert op_of_value(name) == op


def test_embedded_json_cannot_end_its_script_element():
    hostile = {"a": "</script><script>alert(1)</script>", "b": "<!--\u2028"}
    text = embedded(hostile)
    assert "<" not in text and "\u2028" not in text
    assert json.loads(text) == hostile


def test_the_page_names_nothing_to_fetch(gathered):
    html = render(gathered[1])
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!data:)[a-z/.]|@import|url\(""", html.split('id="report-data"')[0])
    data = re.search(r'id="report-data">(.*?)</script>', html, re.DOTALL)
    assert data and json.loads(data[1]) == json.loads(json.dumps(asdict(gathered[1])))


def test_a_report_that_cannot_be_written_leaves_the_old_one(gathered, tmp_path: Path, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("old")

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(gathered[1], out)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert out.read_text() == "old"
