import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from xllmc.runtime.artifact.errors import ArtifactError
from xllmc.runtime.artifact.reader import check_files, read_manifest, read_plan
from xllmc.runtime.artifact.recipe import Recipe, Tensor
from xllmc.runtime.artifact.safetensors_file import SafetensorsFile
from xllmc.runtime.artifact.schema import (
    ABI_VERSION,
    SCHEMA_VERSION,
    KernelLibrary,
    Manifest,
    ModelFacts,
    Plan,
    WeightEntry,
)
from xllmc.runtime.artifact.writer import write_engine

WEIGHTS = tuple(
    WeightEntry(name=f"w{i}", dtype="f32", shape=(4,), recipe=Recipe.source(f"w{i}", (4,), "f32").to_json())
    for i in range(3)
)
MANIFEST = Manifest(
    schema_version=SCHEMA_VERSION,
    abi_version=ABI_VERSION,
    xllmc="0.1.0",
    tools={"torch": "2.13"},
    target="cpu",
    model=ModelFacts(
        architecture="A", family="a", vocab_size=4, hidden_size=4, layers=1, max_context=8, dtype="f32",
        eos_token_ids=(1,), parameters=12,
    ),
    weights=WEIGHTS,
    states=(),
    groups=(),
    passes=(),
    kernels=(KernelLibrary(isa="x86-64-v3", path="kernels/v3.so", glibc="2.17"),),
    graphs={"traced": "graph/traced.txt"},
    files=(),
)  # fmt: skip


def write(path: Path, value: float = 1.0, measured: float = 0.5) -> Manifest:
    with write_engine(path) as writer:
        writer.add_bytes("kernels/v3.so", b"\x7fELF")
        writer.add_text("graph/traced.txt", "graph")
        writer.add_weights(WEIGHTS, lambda entry: Tensor(np.full(4, value, np.float32), "f32"))
        return writer.finish(MANIFEST, Plan(arenas={}, buffers=(), functions=()), {"seconds": measured})


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_an_engine_reads_back(tmp_path: Path) -> None:
    written = write(tmp_path / "e")
    assert read_manifest(tmp_path / "e") == written
    assert [f.path for f in written.files] == ["graph/traced.txt", "kernels/v3.so", "plan.json", "weights.safetensors"]
    assert read_plan(tmp_path / "e").functions == ()
    check_files(tmp_path / "e", written)
    assert SafetensorsFile(tmp_path / "e/weights.safetensors")["w2"].values.tolist() == [1] * 4


def test_writing_twice_gives_the_same_bytes_measurements_aside(tmp_path: Path) -> None:
    write(tmp_path / "a", measured=1)
    write(tmp_path / "b", measured=2)
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first.pop("measured.json") != second.pop("measured.json")
    assert first == second


def test_an_engine_replaces_an_engine_but_no_other_directory(tmp_path: Path) -> None:
    write(tmp_path / "e", 1)
    (tmp_path / "e/manifest.json").write_text('{\n "abi_version": 1, "trunc')
    write(tmp_path / "e", 2)
    assert SafetensorsFile(tmp_path / "e/weights.safetensors")["w0"].values.tolist() == [2] * 4
    (tmp_path / "home").mkdir()
    (tmp_path / "home/manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(ArtifactError, match="not an xllmc engine"):
        write(tmp_path / "home")


@pytest.mark.parametrize(
    ("relative", "message"),
    [("manifest.json", "corrupted|not a valid|not the manifest|newer|older"), ("plan.json", "must have|corrupted")],
)
def test_a_flipped_byte_anywhere_is_found(tmp_path: Path, relative: str, message: str) -> None:
    write(tmp_path / "e")
    good = (tmp_path / "e" / relative).read_bytes()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 7)
        (tmp_path / "e" / relative).write_bytes(bad)
        with pytest.raises(ArtifactError, match=message):
            check_files(tmp_path / "e", read_manifest(tmp_path / "e"))


def test_truncated_files_are_found_without_hashing(tmp_path: Path) -> None:
    write(tmp_path / "e")
    for relative in ("weights.safetensors", "kernels/v3.so", "plan.json", "manifest.json"):
        good = (tmp_path / "e" / relative).read_bytes()
        (tmp_path / "e" / relative).write_bytes(good[:-2])
        with pytest.raises(ArtifactError, match=r"must have \d+ bytes|truncated"):
            read_manifest(tmp_path / "e")
        (tmp_path / "e" / relative).unlink()
        with pytest.raises(ArtifactError, match=f"lacks the file {relative}|not an engine directory"):
            read_manifest(tmp_path / "e")
        (tmp_path / "e" / relative).write_bytes(good)


@pytest.mark.parametrize("key", ["schema_version", "abi_version"])
@pytest.mark.parametrize(("step", "message"), [(1, "a newer xllmc, 0.1.0.*>= 0.1.0"), (-1, "an older xllmc.*== 0.1.0")])
def test_other_versions_say_what_to_install(tmp_path: Path, key: str, step: int, message: str) -> None:
    write(tmp_path / "e")
    data = json.loads((tmp_path / "e/manifest.json").read_text())
    (tmp_path / "e/manifest.json").write_text(json.dumps(data | {key: data[key] + step, "new_field": 1}))
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path / "e")


def test_files_outside_of_the_engine_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "e")
    text = (tmp_path / "e/manifest.json").read_text().replace("graph/traced.txt", "../../etc/passwd")
    blank = text.replace(json.loads(text)["digest"], "0" * 64)
    (tmp_path / "e/manifest.json").write_text(blank.replace("0" * 64, hashlib.sha256(blank.encode()).hexdigest(), 1))
    with pytest.raises(ArtifactError, match="inside of the engine"):
        read_manifest(tmp_path / "e")


def test_directories_that_are_no_engine_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not an engine directory"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ArtifactError, match="not the manifest of an engine"):
        read_manifest(tmp_path)


def test_the_writer_refuses_what_would_make_a_broken_engine(tmp_path: Path) -> None:
    plan = Plan(arenas={}, buffers=(), functions=())
    with pytest.raises(ValueError, match=r"refers to weights\.safetensors"), write_engine(tmp_path / "e") as writer:
        writer.finish(MANIFEST, plan)
    with pytest.raises(ValueError, match="already added"), write_engine(tmp_path / "e") as writer:
        writer.add_text("a", "a")
        writer.add_text("a", "a")
    with pytest.raises(ValueError, match="cannot be the name"), write_engine(tmp_path / "e") as writer:
        writer.add_text("../a", "a")
    with pytest.raises(ValueError, match="finish"), write_engine(tmp_path / "e"):
        pass
    assert not any(tmp_path.iterdir())


def test_reading_a_manifest_of_a_large_model_takes_milliseconds(tmp_path: Path) -> None:
    many = tuple(WEIGHTS[0].model_copy(update={"name": f"w{i}"}) for i in range(500))
    with write_engine(tmp_path / "e") as writer:
        writer.add_bytes("kernels/v3.so", b"")
        writer.add_text("graph/traced.txt", "")
        writer.add_weights(many, lambda entry: Tensor(np.zeros(4, np.float32), "f32"))
        writer.finish(MANIFEST.model_copy(update={"weights": many}), Plan(arenas={}, buffers=(), functions=()))
    read_manifest(tmp_path / "e")
    start = time.perf_counter()
    read_manifest(tmp_path / "e")
    assert time.perf_counter() - start < 0.1
