"""Fixtures that are made once per session: random checkpoints, and engines compiled from them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from xllmc.runtime.engine import Engine

# Before torch is imported: its threads only get in the way of models this small, and of each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import pytest
from hypothesis import settings

# A busy machine is no fault of the code, and a test that fails must fail again.
settings.register_profile("xllmc", deadline=None, derandomize=True)
settings.load_profile("xllmc")

MakeCheckpoint = Callable[[str], Path]
CompileEngine = Callable[[str, str], Path]


class LoadEngine(Protocol):
    def __call__(self, family: str, dtype: str, threads: int = 2) -> "Engine": ...


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A skip is a failure, unless the test is marked as needing an accelerator or a browser."""
    report = yield
    may_skip = any(item.get_closest_marker(name) for name in ("accelerator", "browser"))
    if report.skipped and not hasattr(report, "wasxfail") and not may_skip:
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} skipped, which only tests marked `accelerator` or `browser` may: {report.longrepr}"
        )
    return report


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Family to the directory of its random float32 checkpoint."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            from tests.checkpoints import make_checkpoint

            made[family] = make_checkpoint(family, tmp_path_factory.mktemp(family))
        return made[family]

    return get


@pytest.fixture(scope="session")
def engine_dir(checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> CompileEngine:
    """(Family, ``bf16`` or ``fp32``) to the engine compiled from that family's checkpoint, for this machine only."""
    compiled: dict[tuple[str, str], Path] = {}

    def get(family: str, dtype: str) -> Path:
        if (family, dtype) not in compiled:
            from tests.engines import compile_engine

            out = tmp_path_factory.mktemp("engines") / f"{family}-{dtype}.engine"
            compiled[family, dtype] = compile_engine(checkpoint(family), out, dtype)
        return compiled[family, dtype]

    return get


@pytest.fixture(scope="session")
def loaded(engine_dir: CompileEngine) -> Iterator[LoadEngine]:
    """(Family, ``bf16`` or ``fp32``, number of threads) to the loaded engine, for tests that leave it as it was."""
    engines: dict[tuple[str, str, int], Engine] = {}

    def get(family: str, dtype: str, threads: int = 2) -> "Engine":
        if (family, dtype, threads) not in engines:
            from tests.engines import load_engine

            engines[family, dtype, threads] = load_engine(engine_dir(family, dtype), threads)
        return engines[family, dtype, threads]

    yield get
    for engine in engines.values():
        engine.close()
