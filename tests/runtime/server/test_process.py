"""The server as a process: from its start to its end, whoever ends it."""

import gc
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.engine import Engine
from xllmc.runtime.server.command import serve_command

from tests.runtime.server.serving import PATIENCE, SERVE, Serving, client, running

PATH = "/v1/completions"
LONG = {"prompt": "x", "max_tokens": 150, "ignore_eos": True, "stream": True}


def test_it_serves_and_drains_at_sigterm(chatty_engine: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    with Serving(chatty_engine, "--port", 0, "--trace", trace) as server:
        ready = server.wait("ready")
        assert ready["model"] == "toy" and ready["max_context"] == 200
        assert 0 < ready["seconds"] < PATIENCE
        with client(server.url) as caller:
            assert caller.models.list().data[0].id == "toy"
            stream = caller.completions.create(
                model="toy", prompt="x", max_tokens=150, stream=True, extra_body={"ignore_eos": True}
            )
            next(stream)
            server.process.send_signal(signal.SIGTERM)
            *_, last = stream
            assert last.choices[0].finish_reason == "length"
        assert server.ends() == 0
        assert [line["message"] for line in server.log][-1] == "stopped" and server.other == []
        assert server.wait("draining")["signal"] == "SIGTERM"
        (asked,) = [line for line in server.log if line["message"] == "request" and line["method"] == "POST"]
        assert asked["status"] == 200 and asked["output_tokens"] == 150
    events = json.loads(trace.read_text())
    assert events


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_server_ends_at_once(chatty_engine: Path, number: signal.Signals) -> None:
    """Connections that are kept alive do not hold it up."""
    with Serving(chatty_engine, "--port", 0) as server:
        server.wait("ready")
        with httpx.Client(base_url=server.url) as idle:
            idle.get("/health")
            server.process.send_signal(number)
            assert server.ends() == 0


def test_a_second_signal_ends_it_without_its_requests(chatty_engine: Path) -> None:
    with Serving(chatty_engine, "--port", 0, "--max-sequences", 1, "--threads", 1) as server:
        server.wait("ready")
        with httpx.stream("POST", server.url + PATH, json=LONG | {"n": 128}, timeout=PATIENCE) as response:
            lines = response.iter_lines()  # which ends the request when nothing refers to it any more
            assert next(lines).startswith("data: ")
            server.process.send_signal(signal.SIGTERM)
            assert server.wait("draining")["requests"] == 1
            server.process.send_signal(signal.SIGTERM)
            assert server.ends() == 128 + signal.SIGTERM


def test_a_killed_server_leaves_nothing_that_stops_the_next(chatty_engine: Path) -> None:
    """Killed in the midst of answers: the same port, the same engine, at once."""
    port = 0
    for _ in range(3):
        with Serving(chatty_engine, "--port", port) as server:
            port = int(server.url.rpartition(":")[2])
            server.wait("ready")
            with httpx.stream("POST", server.url + PATH, json=LONG, timeout=PATIENCE) as response:
                lines = response.iter_lines()  # which ends the request when nothing refers to it any more
                assert next(lines).startswith("data: ")
                server.process.kill()
                assert server.ends() == -signal.SIGKILL


def test_a_taken_port_is_one_error(chatty_engine: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*SERVE, chatty_engine, "--port", str(port)], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the server cannot listen on 127.0.0.1 port") and "--port" in line


def test_an_engine_that_is_none_is_one_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SERVE, tmp_path, "--port", "0", "--log-level", "error"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and str(tmp_path) in line


def test_serving_loads_no_torch(chatty_engine: Path) -> None:
    """Nor anything else that only compiling needs, or tests do."""
    script = f"""
import json, logging, os, signal, sys
from xllmc.runtime.cli import run

class Ready(logging.Handler):
    def emit(self, record):
        if record.getMessage() == "ready":
            os.kill(os.getpid(), signal.SIGTERM)

logging.getLogger("xllmc.server").addHandler(Ready())
code = run(["serve", {str(chatty_engine)!r}, "--port", "0"])
print(json.dumps([code, sorted({{name.split(".")[0] for name in sys.modules}})]))
"""
    done = subprocess.run([*SERVE[:2], script], capture_output=True, text=True, timeout=PATIENCE)
    code, loaded = json.loads(done.stdout)
    assert code == 0
    assert "fastapi" in loaded and "tokenizers" in loaded
    assert set(loaded).isdisjoint({"torch", "transformers", "triton", "openai", "httpx", "pytest"})


def test_logs_are_for_people_when_asked(chatty_engine: Path) -> None:
    process = subprocess.Popen(
        [*SERVE, chatty_engine, "--port", "0", "--log-format", "human"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if " ready " in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert "listening  url=http://127.0.0.1:" in lines[0] and not any(line.startswith("{") for line in lines)


def test_whoever_can_be_reached_without_keys_is_told(chatty_engine: Path) -> None:
    with Serving(chatty_engine, "--port", 0, "--host", "0.0.0.0") as server:
        assert (
            server.wait("whoever reaches this address may use the model: there are no API keys")["level"] == "warning"
        )
    environment = {"XLLMC_SERVE_API_KEY": "secret", **os.environ}
    with Serving(chatty_engine, "--port", 0, "--host", "0.0.0.0", environment=environment) as server:
        server.wait("ready")
        assert not [line for line in server.log if line["level"] == "warning"]
        assert "secret" not in json.dumps(server.log)


def test_garbage_is_collected_again_whatever_happens(
    chatty_engine: Path, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in another program leaves that program's garbage alone; the command's looks at what is new only."""
    frozen = gc.get_freeze_count()
    with running(other):
        assert gc.isenabled() and gc.get_freeze_count() == frozen
    monkeypatch.setattr("xllmc.runtime.server.command.set_up_logs", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OptionError, match="cannot listen"):
        serve_command(engine=chatty_engine, config=None, print_config=False, port=taken.getsockname()[1])
    assert gc.isenabled()
