"""The toy engine, compiled once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from xllmc.runtime.engine import Engine

from tests.runtime.toy import compile_kernels, write_toy


@pytest.fixture(scope="session")
def toy_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_kernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def toy_engine(toy_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an engine that no test changes."""
    return write_toy(tmp_path_factory.mktemp("engines") / "toy.engine", toy_library)


@pytest.fixture
def engine(toy_engine: Path) -> Iterator[Engine]:
    """Small capacities, so that batches and prompts are split."""
    with Engine.load(toy_engine, threads=2, max_tokens=24, max_rows=6, max_sequences=6, kv_tokens=800) as loaded:
        yield loaded
