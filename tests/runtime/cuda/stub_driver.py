"""The stand-in for NVIDIA's driver (``stub/``), built here, and a process in which nothing else finds another one."""

import ctypes
import json
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

SOURCES = Path(__file__).with_name("stub")
HOOK = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint)
)
Kernel = Callable[[str, list[int], tuple[int, int, int]], None]
"""Runs a kernel: its name, its arguments and its grid."""


def build_stub(directory: Path) -> Path:
    """``libcuda.so.1`` in ``directory``."""
    library = directory / "libcuda.so.1"
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-shared", "-fPIC", "-pthread", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["gcc", *flags, *sorted(SOURCES.glob("*.c")), "-o", library], check=True)
    return library


class Stub:
    """What tests tell the stub, and ask it; in the process that has it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._library.stub_fail.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
        self._library.stub_memory.argtypes = [ctypes.c_size_t]
        self._library.stub_used.restype = ctypes.c_size_t
        self._library.stub_log.argtypes = [ctypes.c_char_p]
        self._library.stub_mark.argtypes = [ctypes.c_char_p]
        self._library.stub_poison.argtypes = [ctypes.c_char_p]
        self._library.stub_hook.argtypes = [HOOK]
        self._hook = HOOK()
        self.problems: list[BaseException] = []
        """What kernels raised."""

    def reset(self, log: Path | None) -> None:
        """A device of 1 GB and compute capability 9.0, that works."""
        self.memory(1 << 30)
        self._library.stub_architecture(90)
        self.eager(False)
        self._library.stub_poison(None)
        self._library.stub_fail(None, 0, 0)
        self._library.stub_log(None if log is None else str(log).encode())
        self.problems.clear()

    def memory(self, size: int) -> None:
        """How many bytes the device has."""
        self._library.stub_memory(size)

    def architecture(self, number: int) -> None:
        """90 for compute capability 9.0; 0 for no device."""
        self._library.stub_architecture(number)

    def eager(self, wanted: bool) -> None:
        """Whether the device does at once what it is given, and not when somebody waits for it."""
        self._library.stub_eager(int(wanted))

    def kernels(self, run: Kernel | None) -> None:
        """Let ``run`` run all kernels."""

        def hook(name: bytes, count: int, arguments: Any, grid: Any) -> None:
            try:
                run(name.decode(), arguments[:count], (grid[0], grid[1], grid[2]))
            except BaseException as problem:  # noqa: BLE001 - it cannot pass through C; the scenario raises it
                self.problems.append(problem)

        self._hook = HOOK() if run is None else HOOK(hook)
        self._library.stub_hook(self._hook)

    def fail(self, name: str, skipped: int = 0, code: int = 2) -> None:
        """The call of ``name`` after ``skipped`` ones returns ``code``."""
        self._library.stub_fail(name.encode(), skipped, code)

    def poison(self, kernel: str) -> None:
        """Running ``kernel`` is the last that the device does."""
        self._library.stub_poison(kernel.encode())

    def mark(self, what: str) -> None:
        """Write a line to the log."""
        self._library.stub_mark(what.encode())

    @property
    def used(self) -> int:
        """Bytes of device memory that somebody has."""
        return int(self._library.stub_used())

    @property
    def faults(self) -> int:
        """Calls so far that a driver would have punished."""
        return int(self._library.stub_faults())

    def outstanding(self) -> int:
        """How many things were given out and not given back; the log names them."""
        return int(self._library.stub_outstanding())

    def flush(self) -> None:
        """Bring the log to its file."""
        self._library.stub_flush()


class Record(NamedTuple):
    """What a scenario returned, and the log of its calls."""

    result: Any
    log: list[dict[str, Any]]

    def calls(self, name: str) -> list[dict[str, Any]]:
        """Lines of one function."""
        return [line for line in self.log if line.get("call") == name]


@cache
def loaded_stub() -> Stub:
    """The stub of this process; ``begin`` has loaded it."""
    return Stub(ctypes.CDLL("libcuda.so.1"))


def begin(library: str) -> None:
    """At the start of a process: whoever asks for libcuda.so.1 from now on gets the stub."""
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)


def play(scenario: Callable[..., Any], arguments: tuple[Any, ...], log: str, faults: bool) -> Any:
    """Run a scenario, and see that it left nothing and did nothing forbidden; ``faults``: it may."""
    stub = loaded_stub()
    stub.reset(Path(log))
    before = stub.faults
    try:
        result = scenario(*arguments)
        left = 0 if faults else stub.outstanding()
    finally:
        stub.flush()
    if stub.problems:
        raise stub.problems[0]
    lines = [line for line in Path(log).read_text().splitlines() if '"fault"' in line or '"outstanding"' in line]
    assert faults or stub.faults == before, "\n".join(lines[:5])
    assert not left, "\n".join(lines[:5])
    return result


class Gpu:
    """A process with the stub in it."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self._process = self._start()

    def play(self, scenario: Callable[..., Any], *arguments: Any, faults: bool = False) -> Record:
        """Run ``scenario``, a function of some module, there. What it raises is raised here."""
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as log:
            try:
                result = self._process.submit(play, scenario, arguments, log.name, faults).result()
            except BaseException:
                # What it left would be the next one's.
                self.restart()
                raise
            return Record(result, [json.loads(line) for line in Path(log.name).read_text().splitlines()])

    def restart(self) -> None:
        """Another process, after one whose device is broken."""
        self.close()
        self._process = self._start()

    def close(self) -> None:
        self._process.shutdown()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"), begin, (str(self._library),))
