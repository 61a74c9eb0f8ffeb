"""Where settings come from."""

import json
from pathlib import Path

import pytest
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.server.settings import ServeSettings, load_settings

from tests.commands import run_command


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text('engine = "file.engine"\nport = 3\nmax_rows = 3\nthreads = 3\nmodel_name = ["a", "b"]\n')
    return path


def test_flags_go_before_the_environment_and_that_before_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLLMC_SERVE_PORT", "2")
    monkeypatch.setenv("XLLMC_SERVE_MAX_ROWS", "2")
    found = load_settings({"port": 1}, toml)
    assert (found.port, found.max_rows, found.threads, found.max_tokens) == (1, 2, 3, 512)
    assert found.engine == Path("file.engine") and found.names == ("a", "b")


def test_the_file_may_be_named_in_the_environment(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLLMC_SERVE_CONFIG", str(toml))
    assert load_settings({}).port == 3
    as_json = toml.with_suffix(".json")
    as_json.write_text(json.dumps({"engine": "json.engine", "request_timeout": 1.5, "prefix_cache": False}))
    found = load_settings({}, as_json)
    assert (found.engine, found.request_timeout, found.prefix_cache) == (Path("json.engine"), 1.5, False)


def test_variables_hold_lists_between_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLLMC_SERVE_MODEL_NAME", "one, two")
    monkeypatch.setenv("XLLMC_SERVE_API_KEY", "k1,k2")
    monkeypatch.setenv("XLLMC_SERVE_TTFT", "")
    found = load_settings({"engine": "e"})
    assert found.names == ("one", "two") and found.keys() == ("k1", "k2") and found.ttft is None


def test_the_model_is_called_as_its_directory(tmp_path: Path) -> None:
    assert load_settings({"engine": tmp_path / "demo.engine"}).names == ("demo",)
    assert load_settings({"engine": tmp_path / "a" / ".."}).names == (tmp_path.name,)


WRONG = {
    "no engine": ({}, "engine is missing"),
    "an unknown name": ({"engine": "e", "file": "prot = 1"}, "'prot' in .* names no setting .did you mean"),
    "a wrong value": ({"engine": "e", "file": 'port = "x"'}, r"port should be .* got 'x' \(from .*serve.toml\)"),
    "out of range": ({"engine": "e", "port": 70000}, r"65535, got 70000 \(from --port\)"),
    "at odds": ({"engine": "e", "preemption": "swap"}, "preemption by swap needs room"),
    "no TOML": ({"engine": "e", "file": "port = "}, "is no valid TOML"),
    "not a number": ({"engine": "e", "ttft": float("nan")}, "ttft"),
    "XLLMC_SERVE_PROT": ({"engine": "e", "variable": "1"}, "XLLMC_SERVE_PROT names no setting .did you mean"),
    "xllmc_serve_port": ({"engine": "e", "variable": "1"}, "xllmc_serve_port names no setting"),
    "XLLMC_SERVE_THREADS": ({"engine": "e", "variable": "x"}, r"threads .* \(from XLLMC_SERVE_THREADS\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named_with_their_place(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, message = WRONG[case]
    flags = dict(given)
    file = None
    if "file" in flags:
        file = tmp_path / "serve.toml"
        file.write_text(str(flags.pop("file")))
    if "variable" in flags:
        monkeypatch.setenv(case, str(flags.pop("variable")))
    with pytest.raises(OptionError, match=message):
        load_settings(flags, file)


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# mine\nabc\n\n  def  \n")
    assert load_settings({"engine": "e", "api_key": ("x",), "api_key_file": path}).keys() == ("x", "abc", "def")
    for text in ("", "# none\n", "two words\n", "é\n"):
        path.write_text(text)
        with pytest.raises(OptionError, match="key"):
            load_settings({"engine": "e", "api_key_file": path}).keys()
    with pytest.raises(OptionError, match="cannot be read"):
        load_settings({"engine": "e", "api_key_file": tmp_path / "none"}).keys()


def test_the_command_prints_its_settings_without_keys(
    capfd: pytest.CaptureFixture[str], toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLLMC_SERVE_API_KEY", "hidden")
    code, out, err = run_command(
        capfd, "serve", "e.engine", "--config", toml, "--no-prefix-cache", "--model-name", "x", "--print-config"
    )
    assert (code, err) == (0, "") and "hidden" not in out
    shown = json.loads(out)
    assert set(shown) == set(ServeSettings.model_fields)
    assert shown["engine"] == "e.engine" and shown["port"] == 3 and shown["prefix_cache"] is False
    assert shown["model_name"] == ["x"] and shown["api_key"] == ["**********"]
    assert run_command(capfd, "serve", "--prot", "1").code == 2
    assert run_command(capfd, "serve").err == "error: engine is missing; name an engine directory: xllmc serve ENGINE\n"


def test_every_setting_has_a_flag_with_help(capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_command(capfd, "serve", "--help")
    for name in ServeSettings.model_fields.keys() - {"engine"}:
        assert f"--{name.replace('_', '-')} " in out
    assert all(field.description for field in ServeSettings.model_fields.values())
