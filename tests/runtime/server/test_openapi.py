"""The server keeps to its own OpenAPI document, whatever schemathesis makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from xllmc.runtime.engine import Engine

from tests.runtime.server.serving import Running, running

INHERENT = "positive_data_acceptance"
"""Some rules are between fields (top_logprobs needs logprobs), or of the model (its vocabulary and context): a document
cannot say them, so it allows requests that the server refuses."""


def schemathesis(server: Running, directory: Path, *arguments: str) -> None:
    """Fail where it finds an answer that the document does not allow, wrong data that is taken, or a 5xx."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--checks", "all"]
    options = ["--exclude-checks", INHERENT, "--seed", "1", "--continue-on-failure", "--no-color", *arguments]
    environment = {"COLUMNS": "200", **os.environ}
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=directory, env=environment)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]


def statuses(server: Running) -> set[int]:
    text = server.http.get("/metrics", headers={"Authorization": "Bearer secret"}).text
    lines = [line for line in text.splitlines() if line.startswith("xllmc_http_requests_total{")]
    return {int(line.partition('status="')[2].partition('"')[0]) for line in lines}


def test_schemathesis_finds_nothing(chatty_engine: Path, tmp_path: Path) -> None:
    with Engine.load(chatty_engine, threads=1) as engine, running(engine) as server:
        schemathesis(server, tmp_path, "--max-examples", "10")
        assert statuses(server) <= {200, 400, 404, 405, 415}


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_a_long_search(chatty_engine: Path, tmp_path: Path) -> None:
    """With keys, which its checks also leave out and change."""
    with Engine.load(chatty_engine, threads=1) as engine, running(engine, api_key=("secret",)) as server:
        path = server.http.get("/openapi.json", headers={"Authorization": "Bearer secret"})
        (tmp_path / "openapi.json").write_bytes(path.content)
        schemathesis(server, tmp_path, "--max-examples", "500", "--header", "Authorization: Bearer secret")
        assert statuses(server) <= {200, 400, 401, 404, 405, 415}


def test_the_document_says_what_there_is(server: Running) -> None:
    document = server.http.get("/openapi.json").json()
    assert set(document["paths"]) == {
        *("/health", "/ready", "/version", "/metrics", "/v1/models", "/v1/models/{name}"),
        *("/v1/completions", "/v1/chat/completions"),
    }
    completions = document["paths"]["/v1/completions"]["post"]
    assert set(completions["responses"]) == {
        "200",
        "400",
        "401",
        "403",
        "404",
        "408",
        "413",
        "415",
        "429",
        "500",
        "503",
    }
    fields = document["components"]["schemas"]["CompletionRequest"]
    assert fields["additionalProperties"] is False and fields["required"] == ["prompt"]
    assert all("HTTPValidationError" not in name for name in document["components"]["schemas"])
    assert "$defs" not in json.dumps(document)
