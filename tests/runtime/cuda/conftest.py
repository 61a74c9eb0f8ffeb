"""The stub driver and the toy engine for it, built once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.cuda.stub_driver import Gpu, build_stub
from tests.runtime.cuda.toy_cuda import compile_cubins, write_cuda_toy


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpu]:
    """A process with the stub driver in it."""
    process = Gpu(build_stub(tmp_path_factory.mktemp("stub")))
    yield process
    process.close()


@pytest.fixture(scope="session")
def cubins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's cubins for compute capability 9.0."""
    directory = tmp_path_factory.mktemp("cubins")
    compile_cubins(directory)
    return directory


@pytest.fixture(scope="session")
def cuda_toy(cubins: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an engine that no test changes."""
    return write_cuda_toy(tmp_path_factory.mktemp("engines") / "toy-cuda.engine", cubins)
