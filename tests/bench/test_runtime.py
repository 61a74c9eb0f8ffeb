"""``xllmc bench runtime`` on a tiny engine: what it says is there and makes sense; how fast it was is not tested."""

import json
from pathlib import Path

import pytest
from xllmc.bench import runtime as runtime_bench
from xllmc.runtime import cli

from tests.conftest import CompileEngine


def test_overlap_and_prefixes_are_measured(
    engine_dir: CompileEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_bench, "STEP_MS", 0.3)
    monkeypatch.setattr(runtime_bench, "STEPS", 30)
    file = tmp_path / "runtime.json"
    engine = str(engine_dir("qwen3", "fp32"))
    assert cli.run(["bench", "runtime", engine, "--rounds", "1", "--record", str(file), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads(file.read_text())
    overlap, prefix = figures["overlap"], figures["prefix"]
    assert 0 < overlap["step_ms"] <= overlap["period_ms"]
    assert overlap["period_with_ms"] >= overlap["injected_ms"] == runtime_bench.INJECTED_MS
    assert prefix["identical"] and prefix["cached_tokens"] == prefix["prefix_tokens"] // 32 * 32
    assert prefix["warm_ms"] > 0 and prefix["cold_ms"] > 0
    assert set(figures) == {"machine", "xllmc", "model", "overlap", "prefix"}
