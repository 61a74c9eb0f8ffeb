"""The interpreting process, as others use it."""

import os
import pickle
import subprocess
import sys
from functools import cache
from signal import SIGKILL
from threading import Timer

import numpy as np

from ....runtime.artifact.errors import XllmcError
from .requests import Request


class InterpreterError(XllmcError):
    """A kernel failed, or touched memory that is not its own."""


def interpret(request: Request, seconds: float | None = None) -> dict[str, np.ndarray]:
    """The request's memory after its kernels ran. Raises InterpreterError, also where that takes over ``seconds``."""
    process = _worker()
    assert process.stdin is not None and process.stdout is not None
    limit = Timer(seconds, process.kill) if seconds is not None else None
    if limit is not None:
        limit.start()
    try:
        pickle.dump(request, process.stdin)
        process.stdin.flush()
        answer = pickle.load(process.stdout)
    except (EOFError, BrokenPipeError) as problem:
        _worker.cache_clear()
        if process.wait() == -SIGKILL and limit is not None:
            raise InterpreterError(f"it does not end within {seconds} s") from problem
        raise InterpreterError(f"it touches memory that is not its own (signal {-process.returncode})") from problem
    finally:
        if limit is not None:
            limit.cancel()
    if isinstance(answer, str):
        raise InterpreterError(answer)
    return dict(answer)


@cache
def _worker() -> subprocess.Popen[bytes]:
    """Started once; it ends when this process does, as its stdin ends then."""
    command = [sys.executable, "-m", f"{__package__}.worker"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
