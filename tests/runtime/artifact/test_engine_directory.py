import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def edit(engine: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and give it a digest that fits."""
    data = json.loads((engine / "manifest.json").read_text())
    change(data)
    blank = json.dumps(data | {"digest": "0" * 64})
    text = blank.replace("0" * 64, hashlib.sha256(blank.encode()).hexdigest(), 1)
    (engine / "manifest.json").write_text(text)


STATE = {
    "name": "kv.0", "kind": "paged", "group": 0, "kv_heads": 2, "key_dim": 3, "value_dim": 4, "dtype": "bf16",
    "page_bytes": 2 * (4 + 4) * 32 * 2,
}  # fmt: skip
GROUP = {"index": 0, "window": None, "page_tokens": 32, "names": ["kv.0"]}


def cached(**state: Any) -> dict[str, Any]:
    return {"states": [STATE | state], "groups": [GROUP]}


INCONSISTENT: dict[str, tuple[dict[str, Any], str]] = {
    "a file outside": ({"graphs": {"a": "../../etc/passwd"}}, "must include '../../etc/passwd'"),
    "no files": ({"files": []}, "its files must include 'plan.json'"),
    "a path with NUL": ({"files": [{"path": "a\0b", "bytes": 1, "sha256": ""}]}, "inside of the engine"),
    "an absolute path": ({"files": [{"path": "/etc/passwd", "bytes": 1, "sha256": ""}]}, "inside of the engine"),
    "a path upwards": ({"files": [{"path": "a/../../b", "bytes": 1, "sha256": ""}]}, "inside of the engine"),
    "no context": ({"model": MANIFEST.model.model_dump() | {"max_context": 0}}, "max_context must be from 1"),
    "an endless context": ({"model": MANIFEST.model.model_dump() | {"max_context": 10**12}}, "max_context must be"),
    "small pages": ({"groups": [GROUP | {"page_tokens": 0}]}, "pages must have 32 tokens, got 0"),
    "an empty window": ({"groups": [GROUP | {"window": 0}]}, "a window must be"),
    "misplaced groups": ({"groups": [GROUP | {"index": 1}]}, "its place as index"),
    "states of no group": (cached(group=1), "one of the 1 groups, got 1"),
    "other page bytes": (cached(page_bytes=1), "must have 1024 bytes, got 1"),
    "an unknown dtype": (cached(dtype="f4"), "known dtype, got f4"),
    "heads of nothing": (cached(kv_heads=0, page_bytes=0), "at least 1 element"),
}


@pytest.mark.parametrize(("change", "message"), INCONSISTENT.values(), ids=INCONSISTENT)
def test_a_manifest_whose_parts_disagree_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path / "e")
    edit(tmp_path / "e", lambda data: data.update(cached()))
    read_manifest(tmp_path / "e")
    edit(tmp_path / "e", lambda data: data.update(change))
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path / "e")


@pytest.mark.parametrize("key", ["schema_version", "abi_version"])
@pytest.mark.parametrize("value", ["1", None, True, 1.0])
def test_versions_that_are_no_numbers_are_refused(tmp_path: Path, key: str, value: object) -> None:
    write(tmp_path / "e")
    edit(tmp_path / "e", lambda data: data.update({key: value}))
    with pytest.raises(ArtifactError, match=f"a whole number as {key}"):
        read_manifest(tmp_path / "e")


def test_libraries_may_be_left_unread(tmp_path: Path) -> None:
    write(tmp_path / "e")
    (tmp_path / "e/kernels/v3.so").unlink()
    with pytest.raises(ArtifactError, match=r"lacks the file kernels/v3\.so"):
        read_manifest(tmp_path / "e")
    check_files(tmp_path / "e", read_manifest(tmp_path / "e", libraries=False), libraries=False)


def test_directories_that_are_no_engine_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not an engine directory"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="truncated or corrupted"):
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
