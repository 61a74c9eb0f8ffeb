"""Equal programs compare equal whatever their values are called; whatever else differs between programs or engines
shows.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import fx
from xllmc.compiler.diff.align import align
from xllmc.compiler.diff.changes import Row, Text
from xllmc.compiler.diff.engines import compare
from xllmc.compiler.diff.names import matched_names
from xllmc.compiler.diff.programs import AnyOp, compare_programs, normalised, read_program
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.text import print_program
from xllmc.runtime.artifact.reader import read_manifest

from tests.commands import run_command
from tests.engines import edit_manifest
from tests.programs import FACTS

TEXT = f"""program fused {FACTS}
group 0 window=none
weight @m: f32[16, 16] panels = {{"dtype":"f32","name":"a.weight","op":"source","shape":[16,16]}}
weight @n: f32[16] rows = {{"dtype":"f32","name":"b.weight","op":"source","shape":[16]}}
weight @k.1: f32[16] rows = {{"name":"k","op":"constant"}}

func forward(%x: f32[T, 16], %rows: i32[R], %kv: paged<0>f32[2, 4, 4], %slots: i32[T]) -> (y, state) {{
  %a: f32[T, 2, 8] = reshape(%x, shape=[T, 2, 8])  // model.layers.0
  %b: f32[T, 2, 4] = slice(%a, axis=2, start=0, stop=4)
  %c: paged<0>f32[2, 4, 4] = kv_write(%kv, %b, %b, %slots)
  %d: f32[T, 16] = loop(%x, @n, body=(%0: f32[T, 16], %1: f32[16]) {{ %2: f32[T, 16] = mul(%0, %1); return %2 }})
  %e: f32[T, 16] = add(%d, -1.5e-07)
  %f: f32[T, 16] = add(%e, %x)
  %g: (f32[T, 16], f32[T, 16]) = plugin_norm(%f, %e, @k.1, eps=1e-06, fast=true)
  %h: f32[T, 16] = get(%g, index=1)
  %i: f32[T, 16] = linear(%h, @m, none, activation="silu")
  return %i, %c
}}
"""
VALUES = "abcdefghi"
NAMES = st.lists(st.from_regex(r"[a-z0-9_][a-z0-9_.]{0,6}", fullmatch=True), min_size=9, max_size=9, unique=True)


def read(text: str) -> Program:
    return read_program(text, "test")


def renamed(names: list[str]) -> str:
    """The text with its values called otherwise; bodies of loops number theirs anyway."""
    new = {old: f"v.{name}" for old, name in zip(VALUES, names, strict=True)}
    return re.sub(r"%([a-i])\b", lambda match: f"%{new[match[1]]}", TEXT)


def changed_rows(parts: tuple[Text, ...]) -> list[Row]:
    return [row for part in parts for row in part.rows if not row.same]


@given(NAMES)
def test_names_of_values_do_not_count(names: list[str]):
    other = read(renamed(names))
    assert compare_programs(read(TEXT), other) == ()
    assert normalised(other) == normalised(read(TEXT))


def test_module_paths_and_numbers_of_weights_do_not_count():
    other = read(TEXT.replace("  // model.layers.0", "").replace("@k.1", "@k.7"))
    assert compare_programs(read(TEXT), other) == ()


def test_a_weight_of_another_name_is_shown_once():
    (part,) = compare_programs(read(TEXT), read(TEXT.replace("@n", "@other")))
    (row,) = changed_rows((part,))
    assert part.title == "weights" and "@n" in str(row.before) and "@other" in str(row.after)


def edits(program: Program) -> Iterator[tuple[str, Callable[[Program], None]]]:
    """Every single change of an operand, an attribute or an op that the forward function allows."""

    def calls(edited: Program) -> list[fx.Node]:
        return edited.forward.calls

    for place, call in enumerate(program.forward.calls):
        for index, operand in enumerate(call.args):
            others = [n for n in program.forward.graph.nodes if n.op != "output" and n is not operand]
            names = [n.name for n in others if n.name != call.name][:2] if isinstance(operand, fx.Node) else []
            for name in names:

                def rewire(edited: Program, place: int = place, index: int = index, name: str = name) -> None:
                    value = next(n for n in edited.forward.graph.nodes if n.name == name)
                    calls(edited)[place].update_arg(index, value)

                yield f"operand {index} of {call.name} becomes {name}", rewire
            if not isinstance(operand, fx.Node):
                yield (
                    f"operand {index} of {call.name} becomes 2",
                    lambda edited, place=place, index=index: calls(edited)[place].update_arg(index, 2.0),
                )
        for key in call.kwargs:
            yield (
                f"{key} of {call.name}",
                lambda edited, place=place, key=key: calls(edited)[place].update_kwarg(key, 77),
            )
        yield (
            f"op of {call.name}",
            lambda edited, place=place: setattr(calls(edited)[place], "target", AnyOp()["another"]),
        )


def test_any_operand_attribute_or_op_that_changes_shows():
    original = read(TEXT)
    found = list(edits(original))
    assert len(found) > 40
    for what, edit in found:
        changed = original.copy()
        edit(changed)
        assert changed_rows(compare_programs(original, changed)), what
        assert normalised(changed) != normalised(original), what


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('"hidden_size":16', '"hidden_size":32', "program"),
        ("program fused", "program lowered", "program"),
        ("window=none", "window=8", "program"),
        ('"name":"a.weight"', '"name":"c.weight"', "weights"),
        ("f32[16, 16] panels", "f32[16, 16] rows", "weights"),
        ("f32[T, 2, 4] = slice", "f32[T, 2, 5] = slice", "func forward"),
        ("mul(%0, %1)", "add(%0, %1)", "func forward"),
        ("%rows: i32[R]", "%rows: i32[T]", "func forward"),
        ("-> (y, state)", "-> (z, state)", "func forward"),
        ("return %i, %c", "return %h, %c", "func forward"),
        ("func forward", "func backward", "func forward"),
    ],
)
def test_whatever_else_changes_shows_in_its_part(old: str, new: str, part: str):
    assert TEXT.count(old) == 1
    parts = compare_programs(read(TEXT), read(TEXT.replace(old, new)))
    assert part in [p.title for p in parts]


def test_a_new_statement_changes_no_line_but_its_own_and_its_readers():
    other = TEXT.replace("  %f: f32", "  %extra: f32[T, 16] = add(%x, 1.0)\n  %f: f32").replace(
        "(%e, %x)", "(%e, %extra)"
    )
    (part,) = compare_programs(read(TEXT), read(other))
    added, changed = changed_rows((part,))
    assert added.before is None and "add(%x, 1.0)" in str(added.after)
    assert str(changed.before).startswith("%add_1:") and str(changed.after).startswith("%add_1:")


def test_unified_lines_count_as_diff_does():
    rows = tuple(Row(str(i), str(i), same=True) for i in range(20))
    rows = (*rows[:10], Row("old", "new", same=False), Row(None, "more", same=False), *rows[10:])
    assert Text("t", rows).unified() == [
        "@@ -8,7 +8,8 @@ t", " 7", " 8", " 9", "-old", "+new", "+more", " 10", " 11", " 12",
    ]  # fmt: skip


WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


@given(WORDS, WORDS)
def test_items_are_matched_in_order_and_each_once(before: list[str], after: list[str]):
    pairs = align(before, after, [lambda item: item, lambda item: item in "ab"])
    old, new = ([pair[side] for pair in pairs if pair[side] is not None] for side in (0, 1))
    assert (old, new) == (list(range(len(before))), list(range(len(after))))
    matched = [(before[i], after[j]) for i, j in pairs if i is not None and j is not None]
    assert all((a in "ab") == (b in "ab") for a, b in matched)
    if before == after:
        assert all(i == j for i, j in pairs)


@given(*(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz")) for _ in range(2)))
def test_every_thing_has_a_name_of_its_own(before: dict[str, str], after: dict[str, str]):
    names = matched_names(before, after)
    assert names.keys() == after.keys() and len(set(names.values())) == len(names)
    if before == after:
        assert all(name == shown for name, shown in names.items())


# --- the command, on graph files


@pytest.fixture
def graphs(tmp_path: Path) -> tuple[Path, Path]:
    """A file with the text, and one in which an attribute differs and every value is called otherwise."""
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text(TEXT)
    other.write_text(renamed(list(VALUES[::-1])).replace("stop=4", "stop=5"))
    return one, other


def test_equal_graphs_end_with_0_and_say_nothing(capfd, graphs):
    graphs[1].write_text(renamed(list(VALUES)))
    assert run_command(capfd, "diff", *graphs) == (0, "", "")


def test_different_graphs_end_with_1(capfd, graphs):
    done = run_command(capfd, "diff", *graphs)
    assert done.code == 1 and done.err == ""
    changed = [line for line in done.out.splitlines() if re.match(r"[-+][^-+]", line)]
    assert [line[0] for line in changed] == ["-", "+"]
    assert "stop=4" in changed[0] and "stop=5" in changed[1]
    told = json.loads(run_command(capfd, "diff", *graphs, "--json").out)
    assert told["equal"] is False and list(told["texts"]) == ["func forward"]


class Page(HTMLParser):
    """What a browser would load, and whether every element is closed."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(v) for k, v in attrs if k in ("src", "href") and not str(v).startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_loads_nothing(capfd, graphs, tmp_path):
    out = tmp_path / "out.html"
    assert run_command(capfd, "diff", *graphs, "--html", out).code == 1
    page = Page(out.read_text())
    assert page.open == [] and page.loaded == []
    assert "stop=4" in page.text and "stop=5" in page.text and "paged<0>f32" in page.text
    assert "<b>4</b>" in out.read_text() and "<b>5</b>" in out.read_text()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe\x00", "neither an engine directory nor text"),
        (b"toy graph\n", "does not hold the text of a program: line 1"),
        (b"", "does not hold the text of a program"),
        (TEXT.replace("return %i, %c", "return %i").encode(), "returns 1 values, not one each for y, state"),
        (TEXT.replace('"op":"constant"', '"op":').encode(), "does not hold the text of a program"),
    ],
)
def test_bad_input_ends_with_2(capfd, graphs, content, reason):
    one, other = graphs
    other.unlink() if content is None else other.write_bytes(content)
    done = run_command(capfd, "diff", one, other)
    assert done.code == 2 and done.out == "" and reason in done.err
    assert len(done.err.splitlines()) == 1


def test_a_stage_of_files_is_refused(capfd, graphs):
    done = run_command(capfd, "diff", *graphs, "--graph", "fused")
    assert done.code == 2 and "leave it out" in done.err


# --- engines


@pytest.fixture
def twin(engine_dir, tmp_path) -> tuple[Path, Path]:
    """An engine, and a copy of it to change."""
    engine = engine_dir("qwen3", "bf16")
    return engine, Path(shutil.copytree(engine, tmp_path / "twin.engine"))


def test_an_engine_and_its_copy_are_equal(capfd, twin):
    assert run_command(capfd, "diff", *twin) == (0, "", "")
    assert run_command(capfd, "diff", *twin, "--graph", "traced") == (0, "", "")


def test_engines_of_two_dtypes_differ_in_every_part(engine_dir):
    found = compare(engine_dir("qwen3", "bf16"), engine_dir("qwen3", "fp32"))
    facts = {part.title: part.changes for part in found.facts}
    assert ("dtype", "bf16", "f32") in facts["model"]
    assert {"weights", "states", "kernels", "files", "launches of forward"} <= facts.keys()
    assert any(text.title == "func forward" for text in found.texts)


@pytest.mark.parametrize(
    ("field", "value", "part", "shown"),
    [
        ("tools", {"torch": "1.0"}, "made by", "torch"),
        ("xllmc", "0.0.1", "made by", "xllmc"),
    ],
)
def test_a_changed_manifest_shows(capfd, twin, field, value, part, shown):
    edit_manifest(twin[1], lambda data: data.update({field: value}))
    done = run_command(capfd, "diff", *twin, "--json")
    changes = json.loads(done.out)["facts"]
    assert done.code == 1 and list(changes) == [part]
    assert shown in [change["what"] for change in changes[part]]


def test_a_pass_with_other_matches_shows(capfd, twin):
    def one_more(data: dict) -> None:
        data["passes"][-1]["matches"] += 1

    edit_manifest(twin[1], one_more)
    done = run_command(capfd, "diff", *twin)
    assert done.code == 1 and re.search(r"^~\S+: \d+ matches .* -> \d+ matches", done.out, re.MULTILINE)


def test_the_graph_compared_is_the_last_both_have(engine_dir):
    found = compare(engine_dir("qwen3", "bf16"), engine_dir("qwen3", "fp32"))
    (function,) = (text for text in found.texts if text.title == "func forward")
    assert any("qkv_write" in str(row.before) for row in function.rows)


def rewrite(engine: Path, path: str, old: str, new: str) -> None:
    """Change a file of an engine; the manifest goes on fitting where the length stays."""
    text = (engine / path).read_text()
    assert old in text and len(old) == len(new)
    (engine / path).write_text(text.replace(old, new, 1))


def test_a_changed_kernel_shows_its_source(capfd, twin):
    rewrite(twin[1], "kernels/kernels.cpp", "embed", "embad")
    done = run_command(capfd, "diff", *twin)
    assert done.code == 1 and "@@ kernels @@" in done.out
    assert re.search(r"^\+.*embad", done.out, re.MULTILINE)


def test_a_launch_with_another_number_shows(capfd, twin):
    rewrite(twin[1], "plan.json", "1e-06", "2e-06")
    done = run_command(capfd, "diff", *twin)
    assert done.code == 1 and re.search(r"operands or places: 1 of \d+ launches", done.out)


def test_buffers_may_have_other_names(capfd, twin):
    plan = (twin[1] / "plan.json").read_text()
    (twin[1] / "plan.json").write_text(plan.replace("forward:linear", "forward:lanier"))
    assert run_command(capfd, "diff", *twin).code == 0


def test_a_stage_only_one_engine_has_is_refused(capfd, twin):
    done = run_command(capfd, "diff", *twin, "--graph", "parallel")
    assert done.code == 2 and "must be a stage of both engines (traced" in done.err


def test_an_engine_compares_with_a_graph_file(capfd, twin, tmp_path):
    engine = twin[0]
    graph = engine / read_manifest(engine).graphs["recognised"]
    assert run_command(capfd, "diff", engine, graph).code == 0
    (tmp_path / "changed.txt").write_text(graph.read_text().replace("scale=", "scale=-", 1))
    assert run_command(capfd, "diff", tmp_path / "changed.txt", engine).code == 1


def test_text_of_a_graph_reads_back_without_its_ops(twin):
    engine = twin[0]
    for path in read_manifest(engine).graphs.values():
        text = (engine / path).read_text()
        assert print_program(read_program(text, path)) == text
