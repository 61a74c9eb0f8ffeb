"""What a user says of passes, on the command line and in a file, and what is said of his mistakes."""

import json
from typing import Any

import pytest
from xllmc.compiler.pipeline.listing import PassSettings, pass_list
from xllmc.compiler.pipeline.options import configured, parse_settings
from xllmc.compiler.pipeline.settings import pass_settings
from xllmc.passes.api import graph_pass
from xllmc.runtime.artifact.errors import OptionError

from tests.commands import run_command
from tests.compiler.pipeline.installing import IMPATIENT, PASS, Plugins


@graph_pass(stage="fused")
class Tunable:
    """Has options of many types."""

    most: int = 3
    rate: float = 0.5
    exact: bool = True
    word: str = "a"
    words: tuple[str, ...] = ()
    limits: dict[str, int] | None = None

    def run(self, rewriter) -> None:
        """Nothing."""


# --- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('["x", "y"]', ["x", "y"]),
        ('{"a": 1}', {"a": 1}),
        ('"3"', "3"),
        ("plain words", "plain words"),
        ("a=b", "a=b"),
        ("", ""),
        ("[1", "[1"),
    ],
)
def test_a_value_is_json_or_else_text(text, value):
    assert parse_settings([f"tunable.word={text}"]) == {"tunable": {"word": value}}


def test_the_last_value_counts_and_passes_are_kept_apart():
    given = ["a.x=1", "b.x=2", "a.y=3", "a.x=4"]
    assert parse_settings(given) == {"a": {"x": 4, "y": 3}, "b": {"x": 2}}


def test_an_option_may_be_written_with_dashes():
    assert parse_settings(["a-b.some-option=1"]) == {"a-b": {"some_option": 1}}


@pytest.mark.parametrize("setting", ["", "a", "a.b", "a=1", ".b=1", "a.=1", "=1", "."])
def test_a_setting_of_another_form_is_refused(setting):
    with pytest.raises(OptionError, match=r"--set takes PASS\.OPTION=VALUE, got ") as caught:
        parse_settings([setting])
    assert repr(setting) in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "taken"),
    [
        ("most", 7, 7),
        ("rate", 2, 2.0),
        ("exact", False, False),
        ("word", "b", "b"),
        ("words", ["x", "y"], ("x", "y")),
        ("limits", {"a": 1}, {"a": 1}),
        ("limits", None, None),
    ],
)
def test_an_option_is_set(option, value, taken):
    one = configured(Tunable, {option: value})
    assert one.options == {**Tunable().options, option: taken}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("most", "many"),
        ("most", 2.5),
        ("most", "7"),
        ("most", True),
        ("most", None),
        ("rate", "fast"),
        ("exact", "maybe"),
        ("word", 3),
        ("words", "xy"),
        ("limits", {"a": "b"}),
        ("limits", [1]),
    ],
)
def test_a_value_of_another_type_is_refused(option, value):
    with pytest.raises(OptionError, match=f"option {option} of pass tunable: .*, got ") as caught:
        configured(Tunable, {option: value})
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_refused_with_those_there_are():
    with pytest.raises(OptionError, match="pass tunable has no option 'least'; it has most, rate, exact, word, words"):
        configured(Tunable, {"least": 1})
    with pytest.raises(OptionError, match="pass pack-weights has no option 'least'; it has none"):
        pass_list(settings=PassSettings({"pack-weights": {"least": 1}}))


# --- the list


def test_a_disabled_pass_is_left_out_wherever_it_stands():
    names = [one.name for one in pass_list(settings=PassSettings(disabled=("canonicalize", "fuse-linears"))).passes]
    everything = [one.name for one in pass_list().passes]
    assert names == [n for n in everything if n not in ("canonicalize", "fuse-linears")]


@pytest.mark.parametrize("settings", [PassSettings({"fuse-all": {}}), PassSettings(disabled=("fuse-all",))])
def test_an_unknown_pass_is_refused_with_those_there_are(settings):
    with pytest.raises(OptionError, match="there is no pass 'fuse-all' to configure; known: canonicalize, "):
        pass_list(settings=settings)


def test_passes_are_found_by_name():
    listed = pass_list()
    assert [one.name for one in listed.named(["pack-weights", "canonicalize"])] == ["pack-weights", "canonicalize"]
    with pytest.raises(OptionError, match="there is no pass 'nothing'; known: canonicalize, "):
        listed.named(["nothing"])


# --- the file

CONFIG = """
[passes]
plugins = false
disable = ["fuse-linears"]

[passes.group-loops]
some-option = 3
other = [1, 2]
"""


def test_a_file_and_the_command_line_add_up(tmp_path):
    file = tmp_path / "passes.toml"
    file.write_text(CONFIG)
    settings = pass_settings(["group-loops.other=4", "a.b=5"], ["select-rows"], True, file)
    assert settings == PassSettings(
        {"group-loops": {"some_option": 3, "other": 4}, "a": {"b": 5}}, ("fuse-linears", "select-rows"), False
    )
    assert pass_settings() == PassSettings()
    file.write_text("")
    assert pass_settings(config=file) == PassSettings()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[passes", "cannot be read as TOML: "),
        ("\x00", "cannot be read as TOML: "),
        ("[kernels]\n[extra]\n", "unknown extra, kernels; a configuration has the table [passes]"),
        ("passes = 3", "passes must be a table, got 3"),
        ("[passes]\nplugins = 'no'", "passes.plugins must be true or false, got 'no'"),
        ("[passes]\ndisable = 'fuse-linears'", "passes.disable must be a list of names, got 'fuse-linears'"),
        ("[passes]\ndisable = [1]", "passes.disable must be a list of names, got [1]"),
        ("[passes]\ngroup-loops = 3", "[passes.group-loops] must be a table of the pass's options, got 3"),
    ],
)
def test_a_wrong_file_is_refused(text, reason, tmp_path):
    file = tmp_path / "passes.toml"
    file.write_text(text)
    with pytest.raises(OptionError) as caught:
        pass_settings(config=file)
    assert reason in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.toml", ".", "binary.toml"):
        with pytest.raises(OptionError, match=r"--config .* cannot be read as TOML"):
            pass_settings(config=tmp_path / name)


# --- the command line


def mistakes() -> list[Any]:
    known = "known: canonicalize, "
    return [
        (["--set", "group-loops"], "--set takes PASS.OPTION=VALUE, got 'group-loops'"),
        (["--set", "nothing.a=1"], f"there is no pass 'nothing' to configure; {known}"),
        (["--set", "pack-weights.a=1"], "pass pack-weights has no option 'a'; it has none"),
        (["--disable-pass", "nothing"], f"there is no pass 'nothing' to configure; {known}"),
        (["--verify", "sometimes"], "--verify must be one of numeric, structure, off, got 'sometimes'"),
        (["--config", "nowhere.toml"], "--config nowhere.toml cannot be read as TOML"),
        (
            ["--target", "tpu"],
            "--target must be one of ascend:910b, cpu, cuda:sm_80, cuda:sm_89, cuda:sm_90, got 'tpu'",
        ),
        (["--target", "cuda"], "--target must be one of cuda:sm_80, cuda:sm_89, cuda:sm_90, got 'cuda'"),
        (["--target", "cpu:sm_90"], "--target must be one of cpu, got 'cpu:sm_90'"),
        (["--target", "cuda:sm_90", "--isa", "native"], "--isa is for --target cpu, got --target cuda:sm_90"),
    ]


@pytest.mark.parametrize(("arguments", "reason"), mistakes(), ids=[" ".join(a) for a, _ in mistakes()])
def test_a_mistake_ends_a_compile_in_one_line(arguments, reason, tmp_path, capfd):
    (tmp_path / "model").mkdir()
    done = run_command(capfd, "compile", tmp_path / "model", "-o", tmp_path / "out", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("error: ") and reason in done.err
    assert not (tmp_path / "out").exists()


def test_a_compile_does_as_it_is_told(checkpoint, tmp_path, monkeypatch, capfd):
    plugins = Plugins(tmp_path, monkeypatch)
    plugins.install("acme", PASS, passes="acme")
    plugins.install("impatient", IMPATIENT, models="impatient:FAMILIES")
    config = tmp_path / "passes.toml"
    config.write_text('[passes]\ndisable = ["fuse-linears"]\n[passes.double-relu]\nmost = 4\n')
    command = ["compile", checkpoint("gpt2"), "-o", tmp_path / "out", "--isa", "native", "--json", "--config", config]
    told = ["--set", 'double-relu.words=["x"]', "--disable-pass", "select-rows", "--verify", "structure"]
    done = run_command(capfd, *command, *told, "--allow-missed")
    assert done.code == 0, done.err
    passes = {one["name"]: one for one in json.loads(done.out)["passes"]}
    assert "fuse-linears" not in passes and "select-rows" not in passes
    assert passes["double-relu"]["options"] == {"most": 4, "words": ["x"]}
    assert all(one["checked"] == 0 for one in passes.values())
    assert passes["fuse-activation"]["matches"] == 2  # of the three that were asked for
    without = run_command(capfd, *command, "--no-plugins")
    assert without.code == 2
    assert "there is no pass 'double-relu' to configure" in without.err
