"""The machine's profile: kept, found again, and passed over where it is damaged."""

from pathlib import Path

import pytest
from xllmc.runtime import machine
from xllmc.runtime.machine import choose_profile, generic_profile, profile_file, save_profile


def test_a_profile_that_is_kept_is_found_again(tmp_path: Path):
    kept = generic_profile().model_copy(update={"measured": "today"})
    save_profile(kept, profile_file(directory=tmp_path))
    choice = choose_profile(directory=tmp_path)
    assert choice.profile == kept
    assert choice.measured_here
    assert [path.name for path in tmp_path.iterdir()] == [profile_file(directory=tmp_path).name]


def test_without_one_the_shipped_profile_is_used_and_said_so(tmp_path: Path):
    choice = choose_profile(directory=tmp_path)
    assert choice.profile == generic_profile()
    assert not choice.measured_here
    assert "xllmc calibrate" in choice.note


@pytest.mark.parametrize("content", ["", "{", '{"cpu": 3}', "\x00"])
def test_a_damaged_profile_is_passed_over_and_said_so(tmp_path: Path, content: str):
    file = profile_file(directory=tmp_path)
    file.write_text(content)
    choice = choose_profile(directory=tmp_path)
    assert choice.profile == generic_profile()
    assert "damaged" in choice.note and str(file) in choice.note


def test_machines_and_instruction_sets_do_not_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = {profile_file(isa, tmp_path) for isa in ("x86-64-v3", "x86-64-v4")}
    monkeypatch.setattr(machine, "cpu_model", lambda: "Another CPU (R) @ 2/GHz")
    files.add(profile_file("x86-64-v4", tmp_path))
    assert len(files) == 3
    assert all(file.parent == tmp_path for file in files)


def test_the_cache_directory_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert profile_file().parent == tmp_path / "xllmc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert profile_file().parent == tmp_path / ".cache" / "xllmc"


def test_a_profile_is_named_by_its_content():
    profile = generic_profile()
    other = profile.model_copy(update={"other": profile.other.model_copy(update={"overhead": 1.0})})
    assert profile.name != other.name
    assert profile.isa in profile.name


def test_the_shipped_profile_knows_what_a_llama_launches():
    kinds = generic_profile().kernels
    wanted = {f"{op}/{dtype}" for op in ("linear", "paged_attention", "qkv_write") for dtype in ("bf16", "f32")}
    assert wanted <= set(kinds)
    assert all(rates.held_out_samples > 0 for rates in kinds.values())
