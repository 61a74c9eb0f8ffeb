"""``xllmc demo``, the first thing that a newcomer runs: it compiles the bundled model, and what it writes is Python."""

import json

import pytest
from xllmc.runtime.artifact.reader import read_manifest

from tests.commands import run_command
from tests.project.sources import ROOT

CHECKPOINTS = ROOT / "models" / "demo" / "checkpoints"
WORDS = ("def ", "self", "return", "import ", "if ", "class ", "    ")


def test_the_demo_compiles_and_writes_python(tmp_path, capfd):
    out = tmp_path / "demo.engine"
    done = run_command(capfd, "demo", "-o", out, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert read_manifest(out).model.family == "qwen3"
    assert report["tokens_per_second"] > 0
    matched = {p["name"]: p["matches"] for p in report["passes"]}
    assert matched["fuse-qkv-write"] == report["model"]["layers"]
    text = "".join(report["texts"])
    assert sum(word in text for word in WORDS) >= 5, text


@pytest.mark.parametrize("name", ["demo", "draft"])
def test_a_card_says_what_a_model_was_trained_on(name):
    card = (CHECKPOINTS / name / "README.md").read_text()
    assert all(words in card for words in ("standard library", "core-minutes", "Held-out loss"))


def test_the_models_are_small_and_share_a_tokenizer():
    files = [f for f in CHECKPOINTS.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 24e6
    demo, draft = ((CHECKPOINTS / name / "tokenizer.json").read_bytes() for name in ("demo", "draft"))
    assert demo == draft
