"""How near an engine comes to what its machine can give: the two speed floors, load time and memory.

Limits and engine are measured in turns, each in a process of its own, and medians are compared: the machine may be
noisy, and both sides see the same noise.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..codegen.cpu.toolchain import find_compiler
from ..runtime.artifact.isa import supported_isas
from ..runtime.artifact.reader import read_manifest
from ..runtime.artifact.schema import Manifest
from .models import make_model

KV_TOKENS = 544
"""Just what the longest run uses, so that all of it is resident and none flatters the memory figure."""


@dataclass(frozen=True)
class Floors:
    """Medians over the rounds. Shares are of the machine's limit in the same run."""

    compile_s: float
    compile_peak_bytes: int
    load_s: float
    memory_over_weights_and_kv_bytes: int
    decode_tokens_per_s: float
    decode_share_of_bandwidth: float
    prefill_tokens_per_s: float
    prefill_share_of_peak: float
    read_bandwidth: float
    peak_flops: float
    threads: int
    rounds: int
    torch_loaded: bool


def measure(directory: Path, rounds: int, threads: int, say: Callable[[str], None]) -> Floors:
    """Compile a Qwen3-0.6B geometry with random weights into ``directory`` and measure it."""
    model, engine = make_model(directory / "model"), directory / "model.engine"
    say("compiling")
    compile_s, compile_peak = compile_engine(model, engine)
    manifest = read_manifest(engine)
    with tempfile.TemporaryDirectory() as work:
        limits_program = build_limits(Path(work))
        limits, runs = [], []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            limits.append(run_limits(limits_program, threads))
            runs.append(run_worker(engine, threads))
    bandwidth = statistics.median(x["read bandwidth"] for x in limits)
    peak = statistics.median(x.get("bf16 peak", x.get("fp32 peak", 0.0)) for x in limits)
    decode = statistics.median(r["decode_tokens_per_s"] for r in runs)
    prefill = statistics.median(r["prefill_tokens_per_s"] for r in runs)
    weights = weight_bytes(manifest)
    return Floors(
        compile_s=compile_s,
        compile_peak_bytes=compile_peak,
        load_s=statistics.median(r["load_s"] for r in runs),
        memory_over_weights_and_kv_bytes=int(
            statistics.median(r["peak_rss_bytes"] - weights - r["kv_bytes"] for r in runs)
        ),
        decode_tokens_per_s=decode,
        decode_share_of_bandwidth=decode * weights / bandwidth,
        prefill_tokens_per_s=prefill,
        prefill_share_of_peak=prefill * prefill_flops_per_token(manifest) / peak,
        read_bandwidth=bandwidth,
        peak_flops=peak,
        threads=threads,
        rounds=rounds,
        torch_loaded=any(r["torch_loaded"] for r in runs),
    )


def compile_engine(model: Path, engine: Path) -> tuple[float, int]:
    """Seconds and peak memory of ``xllmc compile`` as a process."""
    command = [sys.executable, "-m", "xllmc.runtime.cli", "compile", str(model), "-o", str(engine)]
    began = time.perf_counter()
    subprocess.run([*command, "--random-weights", "0", "--json"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def build_limits(work: Path) -> Path:
    compiler = find_compiler()
    level = supported_isas()[-1]
    program = work / "limits"
    source = Path(__file__).parent / "limits.cpp"
    flags = ["-std=c++20", "-O2", "-pthread", *compiler.machine(level)]
    subprocess.run([*compiler.command, *flags, str(source), "-o", str(program)], check=True)
    return program


def run_limits(program: Path, threads: int, *extra: str) -> dict[str, float]:
    output = subprocess.run([str(program), str(threads), *extra], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value, _ in (line.split("\t") for line in output.splitlines())}


def run_worker(engine: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "xllmc.bench.floors_worker", str(engine), str(threads), str(KV_TOKENS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)


def weight_bytes(manifest: Manifest) -> int:
    return next(f.bytes for f in manifest.files if f.path == "weights.safetensors")


def prefill_flops_per_token(manifest: Manifest) -> float:
    """Of the layers' matrices: two operations for each of their elements. The output head sees one row a prompt."""
    flops = 0
    for weight in manifest.weights:
        if weight.recipe is not None and weight.recipe["op"] == "pack_panels" and ".layers." in weight.name:
            count = 2
            for size in weight.shape:
                count *= size
            flops += count
    return flops


def report(floors: Floors) -> str:
    """A line for each figure, with its floor where it has one."""
    lines = [
        ("compile", f"{floors.compile_s:.0f} s", "under 120 s"),
        ("compile, peak memory", f"{floors.compile_peak_bytes / 1e9:.2f} GB", "under 4 GB"),
        ("load, warm", f"{floors.load_s:.2f} s", "under 0.5 s"),
        ("memory over weights and KV", f"{floors.memory_over_weights_and_kv_bytes / 1e6:.0f} MB", "at most 150 MB"),
        (
            "decode, one sequence",
            f"{floors.decode_tokens_per_s:.1f} tokens/s, {floors.decode_share_of_bandwidth:.0%} of "
            f"{floors.read_bandwidth / 1e9:.1f} GB/s read",
            "at least 50%",
        ),
        (
            "prefill, 512 tokens",
            f"{floors.prefill_tokens_per_s:.0f} tokens/s, {floors.prefill_share_of_peak:.0%} of "
            f"{floors.peak_flops / 1e9:.0f} GFLOP/s",
            "at least 50%",
        ),
    ]
    return "\n".join(f"{name:28} {value:52} {floor}" for name, value, floor in lines)


def record(floors: Floors, manifest: Manifest) -> dict[str, object]:
    """What a file under ``bench/results`` holds."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown",
    )
    return {
        "bench": "floors",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "isa": supported_isas()[-1]},
        "versions": {"xllmc": manifest.xllmc, "python": sys.version.split()[0], **manifest.tools},
        "figures": asdict(floors),
    }
