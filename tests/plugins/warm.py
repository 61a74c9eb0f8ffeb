"""``xllmc`` that starts at once: one process imports torch, and each command is a fork of it.

A command is what it would be by itself: the fork looks for plugins anew, in its environment's site-packages, and has
the caller's folder, variables and streams. Only the seconds that imports take are saved, dozens of times in a run of
the tests.

    python -m tests.plugins.warm SOCKET     the process that is forked
"""

import gc
import importlib
import json
import os
import site
import socket
import sys
import traceback
from typing import Any, NoReturn

from xllmc.compiler.pipeline.listing import pass_list
from xllmc.models.config import load_config
from xllmc.models.trace import TraceOptions, trace
from xllmc.runtime.cli import main

from tests.plugins.environment import READY
from tests.project.sources import ROOT

DRAFT = ROOT / "models" / "demo" / "checkpoints" / "draft"
"""The bundled model."""


def serve(address: str) -> None:
    """Answer until killed. Listing passes and tracing a model import all that a compile does, and no plugin."""
    for name in ("bisect", "compile", "explain", "opt", "ops", "passes"):
        importlib.import_module(f"xllmc.compiler.commands.{name}_command")
    pass_list()
    trace(load_config(DRAFT), TraceOptions("bf16"))
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print(READY, flush=True)
        while True:
            connection, _ = door.accept()
            with connection:
                message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
                while more := connection.recv(1 << 20):
                    message += more
                child = os.fork()
                if child == 0:
                    run(json.loads(message), streams)
                for stream in streams:
                    os.close(stream)
                _, status = os.waitpid(child, 0)
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def run(command: dict[str, Any], streams: list[int]) -> NoReturn:
    """Be the command from here on."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["variables"])
    site.addsitedir(command["site"])
    importlib.invalidate_caches()
    sys.argv = ["xllmc", *command["arguments"]]
    code = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    finally:
        if sys.exception():
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking an interpreter with torch apart copies all its memory first: it takes a second


if __name__ == "__main__":
    serve(*sys.argv[1:])
