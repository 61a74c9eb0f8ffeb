import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from xllmc.runtime.artifact.dtypes import ITEM_BYTES, numpy_dtype
from xllmc.runtime.artifact.errors import ArtifactError, CheckpointError
from xllmc.runtime.artifact.recipe import Tensor
from xllmc.runtime.artifact.safetensors_file import SafetensorsFile, TensorLayout, write_safetensors


def raw_file(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def info(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


DAMAGED = {
    "empty": b"",
    "header cut off": (100).to_bytes(8, "little") + b"{}",
    "absurd header": (1 << 60).to_bytes(8, "little") + b"{}",
}
DAMAGED_HEADERS = {
    "not json": (b"{'a'", b"", "damaged safetensors header"),
    "nested without end": (b"[" * 100_000, b"", "damaged safetensors header"),
    "dtype in a list": ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4), "damaged dtype"),
    "not an object": ([1], b"", "not an object"),
    "no shape": ({"a": {"dtype": "F32"}}, b"", "damaged entry for tensor a"),
    "unknown dtype": ({"a": info(0, 4, [4], "F8_E4M3")}, bytes(4), "got F8_E4M3"),
    "negative size": ({"a": info(0, 4, [-1])}, bytes(4), "damaged shape"),
    "bytes disagree with shape": ({"a": info(0, 8, [1])}, bytes(8), "must have 4 bytes"),
    "overlap": ({"a": info(0, 8, [2]), "b": info(4, 8, [1])}, bytes(8), "overlaps another"),
    "hole": ({"a": info(4, 8, [1])}, bytes(8), "leaves a hole"),
    "data cut off": ({"a": info(0, 8, [2])}, bytes(7), "truncated"),
    "bytes after": ({"a": info(0, 8, [2])}, bytes(9), "bytes follow"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_truncated_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"truncated|not a safetensors"):
        SafetensorsFile(tmp_path / "x")


@pytest.mark.parametrize(("header", "data", "message"), DAMAGED_HEADERS.values(), ids=DAMAGED_HEADERS)
def test_damaged_headers_are_refused(tmp_path: Path, header: object, data: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        SafetensorsFile(raw_file(tmp_path / "x", header, data), ArtifactError)


def test_the_way_out_fits_the_file(tmp_path: Path) -> None:
    file = raw_file(tmp_path / "x", [1])
    with pytest.raises(ArtifactError, match="copy or compile the engine again"):
        SafetensorsFile(file, ArtifactError)
    with pytest.raises(CheckpointError, match="fetch it again"):
        SafetensorsFile(file)


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        SafetensorsFile(tmp_path / "none")


def test_reads_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "ids": np.array([1, 2], np.int64),
        "e": np.zeros((0, 3)),
    }
    save_file(arrays, tmp_path / "x", {"format": "np"})
    file = SafetensorsFile(tmp_path / "x")
    assert set(file.entries) == set(arrays)
    for name, values in arrays.items():
        assert np.array_equal(file[name].values, values)
        assert not file[name].values.flags.writeable


SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)
LAYOUTS = st.lists(st.tuples(st.sampled_from(sorted(ITEM_BYTES)), SHAPES), max_size=8)


@given(LAYOUTS)
def test_written_files_read_back_and_start_aligned(tmp_path_factory: pytest.TempPathFactory, specs: list) -> None:
    layouts = [TensorLayout(f"t{i}", dtype, shape) for i, (dtype, shape) in enumerate(specs)]
    random = np.random.default_rng(0)
    tensors = {t.name: Tensor(random.integers(0, 2, t.shape).astype(numpy_dtype(t.dtype)), t.dtype) for t in layouts}
    path = tmp_path_factory.mktemp("files") / "x"
    with path.open("wb") as file:
        written = list(write_safetensors(file, layouts, lambda t: tensors[t.name]))
    assert {t.name for t in written} == set(tensors)
    read = SafetensorsFile(path)
    assert min((e.start for e in read.entries.values()), default=0) % 64 == 0
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert np.array_equal(read[name].values, tensor.values)


def test_whole_cache_lines_are_aligned_whatever_comes_between(tmp_path: Path) -> None:
    layouts = [
        TensorLayout("odd", "f32", (3,)),
        TensorLayout("matrix", "bf16", (8, 32)),
        TensorLayout("b", "bf16", (5,)),
    ]
    with (tmp_path / "x").open("wb") as file:
        list(write_safetensors(file, layouts, lambda t: Tensor(np.ones(t.shape, numpy_dtype(t.dtype)), t.dtype)))
    assert SafetensorsFile(tmp_path / "x").entries["matrix"].start % 64 == 0
    with safe_open(tmp_path / "x", "numpy") as file:
        assert file.get_tensor("odd").tolist() == [1, 1, 1]


def test_a_tensor_unlike_its_announcement_is_refused() -> None:
    wrong = Tensor(np.zeros(3, np.float32), "f32")
    with pytest.raises(ValueError, match="announced as f32"):
        list(write_safetensors(io.BytesIO(), [TensorLayout("a", "f32", (2,))], lambda t: wrong))
