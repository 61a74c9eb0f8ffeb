"""``xllmc bench serve`` as a whole, against servers with known manners."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import groupby
from pathlib import Path

import pytest

from tests.bench.serve.fake_server import completion, fake_server, refusal
from tests.commands import run_command


def serve(capfd, *arguments: object, code: int | tuple[int, ...] = (0, 1)):
    """What the command printed. Exit code 1 too is a result: a busy machine may have made the client late."""
    done = run_command(capfd, "bench", "serve", *arguments)
    assert done.code in ((code,) if isinstance(code, int) else code), done.err
    return done


def report(capfd, *arguments: object, **given):
    return json.loads(serve(capfd, *arguments, "--json", **given).out)


def test_a_sweep_is_measured_and_kept(capfd, tmp_path):
    with fake_server(lambda asked: completion(asked, first=0.02, each=0.002)) as fake:
        out = tmp_path / "out"
        found = report(
            capfd, fake.url, "--rate", 20, "--rate", 60, "--requests", 12, "--prompt-tokens", "uniform:3:9",
            "--output-tokens", 4, "--vocab", 500, "--slo", "ttft:30", "--slo", "tpot:30", "-o", out, "--warmup", 2,
        )  # fmt: skip
        assert len(fake.asked) == 1 + 2 + 24  # probe, warm-up, two lines
    assert {asked["max_tokens"] for asked in fake.asked[3:]} == {4}
    assert all(asked["ignore_eos"] and all(0 <= token < 500 for token in asked["prompt"]) for asked in fake.asked)
    (server,) = found["servers"]
    assert (server["version"], server["models"], server["dialect"]["model"]) == ({"version": "1.2"}, ["fake"], "fake")
    assert [(line["loop"], line["rate"], line["completed"]) for line in found["lines"]] == [
        ("open", 20, 12),
        ("open", 60, 12),
    ]
    for line in found["lines"]:
        assert line["attainment"] == 1.0 and line["goodput"] == pytest.approx(line["request_rate"])
        assert line["output_tokens"]["mean"] == 4 and line["ttft"]["n"] == 12 and line["errors"] == {}
    assert found["config"]["rate"] == [20.0, 60.0] and found["interrupted"] is False
    assert json.loads((out / "results.json").read_text()) == found
    kept = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert len(kept) == 24 and all(len(one["gaps_ms"]) == 3 and one["error"] is None for one in kept)
    assert {path.name for path in out.glob("*.svg")} == {"latencies.svg", "timeline.svg", "loads.svg"}
    for text in ("milliseconds", "share of completed requests", "ttft &lt;= 30 s"):
        assert text in (out / "latencies.svg").read_text()


def test_one_seed_asks_for_the_same(capfd):
    asked = []
    for seed in (1, 1, 2):
        with fake_server() as fake:
            report(capfd, fake.url, "--rate", 200, "--requests", 8, "--output-tokens", "uniform:2:5", "--seed", seed)
        asked.append(sorted(json.dumps(one) for one in fake.asked))
    assert asked[0] == asked[1] != asked[2]


def test_a_server_slower_than_its_load_shows_in_latency(capfd):
    """The queue is in the figures, though the client never waits for the server before it sends."""

    def slow(asked):
        return completion(asked, first=0.03)

    with fake_server(slow, at_once=1) as fake:
        opened = report(capfd, fake.url, "--rate", 200, "--requests", 60, "--output-tokens", 1)["lines"][0]
    with fake_server(slow, at_once=1) as fake:
        closed = report(capfd, fake.url, "--concurrency", 1, "--requests", 20, "--output-tokens", 1)["lines"][0]
    assert opened["saturated"] and any("saturated" in note for note in opened["notes"])
    assert opened["ttft"]["p50"] > 4 * closed["ttft"]["p50"]
    assert closed["loop"] == "closed" and any("closed loop" in note for note in closed["notes"])


def test_servers_are_compared_in_turns_on_the_same_requests(capfd):
    order = []

    def answering(name: str, first: float):
        def answer(asked):
            order.append(name)
            return completion(asked, first=first)

        return answer

    with fake_server(answering("slow", 0.2)) as slow, fake_server(answering("fast", 0.02)) as fast:
        loads = ("--rate", 30, "--requests", 6, "--output-tokens", 2, "--rounds", 2, "--warmup", 0)
        found = report(capfd, slow.url, fast.url, *loads)
    # Asked who they are, then in turns; each round begins with another.
    assert [name for name, _ in groupby(order)] == ["slow", "fast", "slow", "fast", "slow"]
    assert sorted(map(json.dumps, slow.asked)) == sorted(map(json.dumps, fast.asked))
    assert [(line["server"], line["rounds"], line["requests"]) for line in found["lines"]] == [(0, 2, 12), (1, 2, 12)]
    ratio = next(r for r in found["ratios_to_first_server"] if r["metric"] == "ttft")
    assert ratio["server"] == 1 and ratio["low"] <= ratio["high"] and ratio["ratio"] < 0.9


def test_errors_are_counted_apart(capfd):
    count = 0

    def answer(asked):
        nonlocal count
        count += 1
        if count <= 1:
            return completion(asked)
        return (completion(asked), refusal(429, "full"), refusal(503, "draining"), refusal(500, "oops"))[count % 4]

    with fake_server(answer) as fake:
        (line,) = report(capfd, fake.url, "--rate", 100, "--requests", 40, "--warmup", 0)["lines"]
    assert {kind: error["count"] for kind, error in line["errors"].items()} == {"429": 10, "503": 10, "500": 10}
    assert line["completed"] == 10 and line["errors"]["429"]["example"] == "full" and line["retries"] == 0


def test_a_server_that_dies_leaves_a_report(capfd):
    count = 0

    def answer(asked):
        nonlocal count
        count += 1
        return completion(asked) if count <= 11 else None

    with fake_server(answer) as fake:
        (line,) = report(capfd, fake.url, "--rate", 50, "--requests", 30, "--warmup", 0)["lines"]
    assert line["completed"] == 10
    assert (
        line["errors"].keys() <= {"disconnected", "connect"} and sum(e["count"] for e in line["errors"].values()) == 20
    )


def test_nothing_completed_exits_with_1(capfd):
    count = 0

    def answer(asked):
        nonlocal count
        count += 1
        return completion(asked) if count == 1 else refusal(500, "oops")

    with fake_server(answer) as fake:
        done = serve(capfd, fake.url, "--rate", 100, "--requests", 5, "--warmup", 0, code=1)
    assert "oops" in done.out and "TTFT" in done.out


def test_extensions_that_a_server_rejects_are_left_out(capfd):
    def strict(asked):
        for name in ("ignore_eos", "stream_options"):
            if name in asked:
                return refusal(422, f"unknown field {name}")
        return completion(asked, tokens=2)

    with fake_server(strict) as fake:
        found = report(capfd, fake.url, "--rate", 100, "--requests", 5, "--output-tokens", 4)
    dialect = found["servers"][0]["dialect"]
    assert not dialect["ignore_eos"] and not dialect["usage"]
    (line,) = found["lines"]
    assert line["tokens_counted_by"] == "chunks" and line["short_outputs"] == 5 and line["output_tokens"]["mean"] == 2


def test_a_shared_prefix_is_asked_for_and_reported(capfd):
    seen: set[str] = set()

    def caching(asked):
        prefix = " ".join(asked["messages"][0]["content"].split()[:20])
        known = prefix in seen
        seen.add(prefix)
        return completion(asked, first=0.0 if known else 0.3, cached=20 if known else 0)

    with fake_server(caching) as fake:
        found = report(
            capfd, fake.url, "--chat", "--rate", 10, "--requests", 12, "--prompt-tokens", 5, "--output-tokens", 2,
            "--prefix-tokens", 20, "--prefix-groups", 2,
        )  # fmt: skip
    (line,) = found["lines"]
    assert line["cached_share"] == pytest.approx(10 * 20 / (12 * 25))
    assert line["prefix"]["first_ttft"]["n"] == 2 and line["prefix"]["first_ttft"]["p50"] > 0.29
    assert line["prefix"]["later_ttft"]["p50"] < line["prefix"]["first_ttft"]["p50"]


def test_a_trace_and_prompts_of_a_file_are_sent(capfd, tmp_path):
    trace, prompts = tmp_path / "trace.jsonl", tmp_path / "prompts.jsonl"
    trace.write_text("".join(f'{{"time": {i / 50}, "prompt_tokens": {i + 1}, "output_tokens": 2}}\n' for i in range(6)))
    prompts.write_text('{"messages": [{"role": "user", "content": "say hi"}], "output_tokens": 3}\n')
    with fake_server() as fake:
        (line,) = report(capfd, fake.url, "--trace", trace)["lines"]
        assert sorted(len(asked["prompt"].split()) for asked in fake.asked[-6:]) == [1, 2, 3, 4, 5, 6]
        report(capfd, fake.url, "--chat", "--prompts", prompts, "--concurrency", 2, "--requests", 4)
    assert line["load"] == "trace" and line["rate"] is None and line["offered_rate"] == pytest.approx(50)
    assert fake.asked[-1]["messages"] == [{"role": "user", "content": "say hi"}] and fake.asked[-1]["max_tokens"] == 3


def test_ctrl_c_reports_what_was_done(tmp_path):
    # The first ten answers come at once, the others never: what is done by then is known.
    count = 0
    tenth = threading.Event()

    def answer(asked):
        nonlocal count
        count += 1
        if count > 12:
            tenth.set()
        return completion(asked, first=0.0 if count <= 11 else 1000.0)

    with fake_server(answer) as fake:
        command = [sys.executable, "-m", "xllmc.runtime.cli", "bench", "serve", fake.url, "--rate", "50", "--json"]
        process = subprocess.Popen(
            [*command, "--requests", "100000", "--warmup", "0", "-o", tmp_path / "out", "--plots", "none"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert tenth.wait(60)
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    found = json.loads(out)
    assert found["interrupted"] and found["lines"][0]["completed"] == 10 and found["lines"][0]["unfinished"] >= 1
    assert (tmp_path / "out" / "results.json").exists()


def test_the_report_is_for_reading(capfd):
    with fake_server(lambda asked: completion(asked, per_chunk=3)) as fake:
        out = serve(capfd, fake.url, "--rate", 50, "--requests", 10, "--slo", "e2e:60").out
    for expected in ("model fake, version 1.2", "TTFT", "TPOT", "ITL", "E2E", "p99", "good/s", "good: e2e <= 60 s"):
        assert expected in out
    assert re.search(r"a chunk holds 2\.\d+ tokens", out)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("ftp://x", "--rate", 1), "ftp"),
        (("http://u:p@x", "--rate", 1), "--api-key"),
        (("http://127.0.0.1:9", "--rate", 1), "is the server up"),
        (("URL",), "--rate"),
        (("URL", "--rate", 1, "--concurrency", 1), "--concurrency"),
        (("URL", "--rate", 1, "--vocab", "9:3"), "--vocab"),
        (("URL", "--rate", 1, "--vocab", "many"), "--vocab"),
        (("URL", "--rate", 1, "--body", "[]"), "--body"),
        (("URL", "--rate", 1, "--body", "{"), "--body"),
        (("URL", "--rate", 1, "--slo", "x:1"), "--slo"),
        (("URL", "--rate", 1, "--prompts", "/nowhere"), "/nowhere"),
        (("URL", "--concurrency", 1, "--duration", 3), "--duration"),
        (("URL", "--rate", 1, "--trace", "/nowhere"), "--trace"),
    ],
)
def test_mistakes_are_named_on_one_line(capfd, arguments, named):
    with fake_server() as fake:
        done = serve(capfd, *(fake.url if argument == "URL" else argument for argument in arguments), code=2)
    assert named in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "models", "named"),
    [
        (lambda asked: refusal(404, "no such model"), ("m",), "try --chat"),
        (lambda asked: refusal(500, "broken"), ("m",), "broken"),
        (completion, (), "--model"),
    ],
)
def test_a_server_that_cannot_be_measured_is_refused_at_once(capfd, answer, models, named):
    with fake_server(answer, models=models) as fake:
        done = serve(capfd, fake.url, "--rate", 1, code=2)
    assert named in done.err and len(fake.asked) <= 1


@pytest.mark.parametrize("module", ["aiohttp", "matplotlib"])
def test_what_is_not_installed_is_asked_for_before_anything_is_sent(capfd, monkeypatch, tmp_path, module):
    from xllmc.bench.serve import command

    monkeypatch.setattr(command, "find_spec", lambda name: None if name == module else object())
    with fake_server() as fake:
        done = serve(capfd, fake.url, "--rate", 100, "-o", tmp_path, code=2)
        assert "pip install 'xllmc[bench]'" in done.err and module in done.err and not fake.asked
        if module == "matplotlib":
            serve(capfd, fake.url, "--rate", 200, "--requests", 3, "-o", tmp_path, "--plots", "none")
            assert {path.name for path in tmp_path.iterdir()} == {"results.json", "requests.jsonl"}


def test_the_command_line_starts_without_what_only_this_command_needs():
    code = "import sys; from xllmc.bench import cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path("/"))
    assert "aiohttp" not in done.stdout and "matplotlib" not in done.stdout
