import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from xllmc.runtime import cli
from xllmc.runtime.artifact.version import xllmc_version
from xllmc.runtime.generate_command import Timings, report
from xllmc.runtime.requests import Chunk, TokenLogprobs

from tests.runtime.toy import write_toy

COMMAND = [sys.executable, "-c", "from xllmc.runtime.cli import main; main()"]


def xllmc(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_generate_writes_text(capsys: pytest.CaptureFixture[str], toy_engine: Path) -> None:
    options = ("--prompt", "hello", "--max-tokens", "9", "--seed", "4", "--temperature", "0.8")
    code, out, err = xllmc(capsys, "generate", toy_engine, *options)
    assert (code, err) == (0, "")
    assert out == xllmc(capsys, "generate", toy_engine, *options)[1]
    code, report, _ = xllmc(capsys, "generate", toy_engine, *options, "--json", "--logprobs", "2")
    data = json.loads(report)
    assert code == 0 and data["text"] + "\n" == out
    assert len(data["token_ids"]) == len(data["logprobs"]) == 9 and data["finish_reason"] == "length"
    assert len(data["prompt_token_ids"]) == 5 and len(data["logprobs"][0]["top"]) == 2
    assert set(data["timings"]) == {"load", "first_token", "total", "tokens_per_second"}


def test_generate_reads_standard_input_and_chats(toy_library: Path, tmp_path: Path) -> None:
    from tests.runtime.toy import tokenizer_json

    template = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
    files = {"tokenizer.json": tokenizer_json(), "chat_template.jinja": template}
    write_toy(tmp_path / "e", toy_library, tokenizer_files=files)
    arguments = ["generate", tmp_path / "e", "-p", "-", "--chat", "--system", "S", "--max-tokens", "2", "--json"]
    done = subprocess.run([*COMMAND, *arguments], input="Grüße", capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["prompt_token_ids"]) == len("system=S;user=Grüße;".encode())


def test_inspect_shows_and_checks(capsys: pytest.CaptureFixture[str], toy_engine: Path) -> None:
    code, out, _ = xllmc(capsys, "inspect", toy_engine, "--check")
    assert code == 0
    for shown in (
        "ToyForCausalLM",
        "x86-64-v3",
        "window 40",
        "fuse-nothing",
        "nearly: almost",
        "2  toy_store",
        "match",
    ):
        assert shown in out
    assert xllmc(capsys, "inspect", toy_engine, "--graph", "traced")[1] == "toy graph\n"
    data = json.loads(xllmc(capsys, "inspect", toy_engine, "--json", "--check")[1])
    assert data["model"]["vocab_size"] == 260 and data["checked"] is True
    assert data["plan"]["forward"] == {"toy_store": 2, "toy_logits": 2}


def test_mistakes_end_in_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], toy_engine: Path, toy_library: Path, tmp_path: Path
) -> None:
    corrupted = write_toy(tmp_path / "corrupted", toy_library)
    weights = bytearray((corrupted / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (corrupted / "weights.safetensors").write_bytes(weights)
    garbled = write_toy(tmp_path / "garbled", toy_library)
    graph = garbled / "graph/traced.txt"
    graph.write_bytes(b"\xff" * graph.stat().st_size)
    cases = {
        ("generate", tmp_path, "-p", "x"): "not an engine directory",
        ("generate", toy_engine): "either --prompt or --prompts",
        ("generate", toy_engine, "-p", "x", "--colour"): "No such option: --colour",
        ("generate", toy_engine, "-p", "x", "--top-p", "7"): "top_p must be above 0 and at most 1, got 7.0",
        ("generate", toy_engine, "-p", "x", "--top-k", "many"): "--top-k",
        ("generate", toy_engine, "-p", "x", "--chat"): "no chat template",
        ("generate", toy_engine, "-p", "x", "--system", "s"): "--system needs --chat",
        ("generate", toy_engine, "-p", "x", "--logit-bias", "a"): "--logit-bias must be ID=BIAS",
        ("generate", toy_engine, "-p", "x", "--logit-bias", "1=2", "--logit-bias", "1=3"): "each token once, got 1",
        ("generate", toy_engine, "-p", "x", "--logit-bias", "1=1e39"): "logit_bias of token 1 must be a number",
        ("generate", toy_engine, "-p", "x", "--top-k", "9999999999"): "top_k must be a whole number from 0",
        ("generate", toy_engine, "-p", "x\udcff"): "must be valid Unicode",
        ("inspect", garbled, "--graph", "traced"): "traced.txt is damaged",
        ("generate", toy_engine, "-p", "x", "--isa", "sse2"): "not for sse2",
        ("generate", toy_engine, "-p", "x", "--threads", "-3"): "threads must be at least 1",
        ("generate", toy_engine, "-p", "x" * 300): "shorter than the context of 200",
        ("inspect", toy_engine, "--graph", "fused"): "--graph must be one of traced, got fused",
        ("inspect", corrupted, "--check"): "corrupted: its SHA-256",
        ("frobnicate",): "No such command 'frobnicate'",
        ("--colour",): "No such option",
    }
    for arguments, message in cases.items():
        code, out, err = xllmc(capsys, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_version_and_help_import_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert xllmc(capsys, "--version") == (0, f"xllmc {xllmc_version()}\n", "")
    code, out, _ = xllmc(capsys)
    assert code == 0 and "compile" in out and "generate" in out
    script = "import sys; from xllmc.runtime.cli import run; run(['--help']); print(*sys.modules)"
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "generate_command" not in listed


def test_compiling_without_the_extra_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_torch(module: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.fx")

    monkeypatch.setattr(cli, "import_module", without_torch)
    code, _, err = xllmc(capsys, "compile", "model", "-o", "out")
    assert (code, err) == (2, "error: xllmc compile needs torch and transformers: pip install 'xllmc[compile]'\n")


def test_control_c_ends_with_130(toy_engine: Path) -> None:
    arguments = ["generate", str(toy_engine), "-p", "-"]
    process = subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    until = time.monotonic() + 20
    while "toy.so" not in maps.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


def test_a_closed_pipe_is_no_error(toy_engine: Path) -> None:
    options = "-p x --max-tokens 150 --ignore-eos --seed 1"
    script = f'{sys.executable} -c "from xllmc.runtime.cli import main; main()" generate {toy_engine} {options} | true'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""


def test_output_that_is_read_in_part_ends_quietly(toy_engine: Path) -> None:
    program = f'{sys.executable} -c "from xllmc.runtime.cli import main; main()"'
    for arguments in ("generate {} -p x --max-tokens 150 --ignore-eos --seed 1", "inspect {} --json"):
        script = f"{program} {arguments.format(toy_engine)} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        # Short output may fit in the pipe before the reader is gone.
        assert done.stderr == "" and done.returncode in (0, 141)


def test_output_to_a_closed_pipe_ends_with_141(toy_engine: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["generate", str(toy_engine), "-p", "x", "--max-tokens", "3"]
    done = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_text_that_the_terminal_cannot_write_is_replaced(toy_engine: Path) -> None:
    arguments = ["generate", str(toy_engine), "-p", "x", "--max-tokens", "40", "--ignore-eos", "--seed", "1"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, *arguments, "--temperature", "5"], capture_output=True, env=ascii_only)
    assert (done.returncode, done.stderr) == (0, b"") and b"?" in done.stdout


def test_a_prompt_that_is_not_utf_8_ends_in_one_line(toy_engine: Path) -> None:
    arguments = ["generate", str(toy_engine), "-p", "-"]
    utf_8 = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([*COMMAND, *arguments], input=b"\xff\xfe", capture_output=True, env=utf_8)
    assert done.returncode == 2 and b"must be UTF-8" in done.stderr and done.stderr.count(b"\n") == 1


def test_reports_are_json_whatever_the_numbers() -> None:
    chunk = Chunk(0, 5, "x", TokenLogprobs(-1.0, -np.inf, np.nan, ((5, -np.inf), (6, -2.0))), 0, "length")
    data = report([1], [chunk], Timings(0.0, 0.0, 0.0, None))
    text = json.dumps(data, allow_nan=False)
    logprobs = {"model": -1.0, "temperature": None, "sampled": None, "top": [[5, None], [6, -2.0]]}
    assert json.loads(text)["logprobs"] == [logprobs]


GENERATING = """
import sys
from xllmc.runtime.cli import run
code = run(["generate", sys.argv[1], "-p", "x", "--max-tokens", "3"])
heavy = {"torch", "transformers", "triton", "rich"} & {name.partition(".")[0] for name in sys.modules}
ours = [name for name in sys.modules if name.startswith("xllmc.") and not name.startswith("xllmc.runtime")]
print(code, sorted(heavy), ours, file=sys.stderr)
"""


def test_a_generating_process_imports_no_torch_and_none_of_the_compiler(toy_engine: Path) -> None:
    done = subprocess.run([sys.executable, "-c", GENERATING, toy_engine], capture_output=True, text=True, check=True)
    assert done.stderr == "0 [] []\n"


LOADING = """
import sys
from xllmc.runtime.engine import Engine
engine = Engine.load(sys.argv[1], kv_tokens=64)
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"torch", "transformers", "rich", "typer", "jinja2", "tokenizers", "safetensors"}))
"""


def test_loading_an_engine_imports_only_what_it_needs(toy_engine: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOADING, toy_engine], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_file_of_prompts(capsys: pytest.CaptureFixture[str], toy_engine: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('"ab"\n\n[1, 2, 3]\n{"prompt": "ab"}\n')
    options = ("--prompts", prompts, "-n", "2", "--max-tokens", "5", "--seed", "3", "--temperature", "1")
    code, shown, err = xllmc(capsys, "generate", toy_engine, *options, "--logprobs", "0")
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in shown.splitlines()]
    assert [(r["prompt_index"], r["sample_index"]) for r in records] == [(p, s) for p in range(3) for s in range(2)]
    assert records[0]["text"] == records[4]["text"] != records[1]["text"]
    assert all(len(record["logprobs"]) == len(record["token_ids"]) == 5 for record in records)
    assert xllmc(capsys, "generate", toy_engine, *options, "-o", out)[:2] == (0, "")
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [r["text"] for r in records]
    assert sorted(tmp_path.iterdir()) == [out, prompts]


FILES = {
    "": "must hold prompts, one JSON value a line, got none",
    '"a"\n{"prompt": 1}\n': "prompts.jsonl:2: .* got int",
    "[1, true]\n": "prompts.jsonl:1: .* got list",
    "{": "prompts.jsonl:1 must be JSON",
    '{"prompt": "a", "n": 2}': "got an object with 'prompt', 'n'",
}


@pytest.mark.parametrize(("text", "message"), FILES.items())
def test_a_bad_file_of_prompts_is_one_error(
    capsys: pytest.CaptureFixture[str], toy_engine: Path, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    code, out, err = xllmc(capsys, "generate", toy_engine, "--prompts", file)
    assert (code, out) == (2, "") and re.search(message, err)


def test_prompt_or_prompts(capsys: pytest.CaptureFixture[str], toy_engine: Path, tmp_path: Path) -> None:
    for arguments in ((), ("-p", "a", "--prompts", tmp_path)):
        code, _, err = xllmc(capsys, "generate", toy_engine, *arguments)
        assert code == 2 and "either --prompt or --prompts" in err
    assert "needs --prompts" in xllmc(capsys, "generate", toy_engine, "-p", "a", "-n", "2")[2]


def test_generate_writes_a_trace(capsys: pytest.CaptureFixture[str], toy_engine: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    code, _, err = xllmc(capsys, "generate", toy_engine, "-p", "a", "--max-tokens", "5", "--trace", file)
    assert code == 0 and "5 steps, 1 requests" in err
    names = {event.get("name") for event in json.loads(file.read_text())}
    assert {"prefill", "decode", "schedule", "process"} <= names
