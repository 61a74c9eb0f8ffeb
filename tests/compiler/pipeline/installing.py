"""Plugins as a package manager would leave them: a module and its metadata in a directory of the path."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest


class Plugins:
    """Installs plugins for one test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        monkeypatch.syspath_prepend(folder)

    def install(self, name: str, source: str, version: str = "1.0", **entries: str) -> None:
        """A distribution ``name`` of one module of that name. ``entries``: group (without ``xllmc.``) to value."""
        (self.folder / f"{name}.py").write_text(dedent(source))
        metadata = self.folder / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        groups = [f"[xllmc.{group}]\n{name} = {value}\n" for group, value in entries.items()]
        (metadata / "entry_points.txt").write_text("\n".join(groups))
        self.monkeypatch.delitem(sys.modules, name, raising=False)
        self.monkeypatch.syspath_prepend(self.folder)  # which forgets what was found there before


PASS = '''
from xllmc.passes.api import Float, Value, example, graph_pass, ops, rewrite


@rewrite(stage="recognised", numerics="reassociating", after="recognize-gelu")
class DoubleRelu:
    """``relu(relu(x))``   ==>   ``relu(x)``"""

    most: int = 3
    words: tuple[str, ...] = ("a",)

    def pattern(self, x: Float[Value, "..."]) -> Value:
        return ops.relu(ops.relu(x))

    def replacement(self, x: Value) -> Value:
        return ops.relu(x)

    examples = (example(lambda x: ops.relu(ops.relu(x)), x="f32[T, 4]"),)


@graph_pass(stage="fused", before="group-loops")
def count_calls(rewriter) -> None:
    """Counts calls, and changes nothing."""
    for node in rewriter.calls():
        rewriter.matched(node)
'''
"""A plugin's module with two passes."""

IMPATIENT = """
from xllmc.models.family import Family

FAMILIES = (Family("gpt2", {"fuse-activation": "layers + 1", "recognize-rope": "layers"}),)
"""
"""A plugin's module with a family that expects more than there is."""
