"""One process's part of ``xllmc bench floors``: load an engine, run it, print one JSON object. No torch here."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from ..runtime.engine import Engine
from ..runtime.sampling import SamplingParams

PROMPT, OUTPUT, PREFILL = 128, 64, 512


def main() -> None:
    path, threads, kv_tokens = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    began = time.perf_counter()
    with Engine.load(path, threads=threads, kv_tokens=kv_tokens) as engine:
        load = time.perf_counter() - began
        random = np.random.default_rng(0)
        prompt, long = (random.integers(0, 50_000, n).tolist() for n in (PROMPT, PREFILL))
        engine.generate([prompt], SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True))
        times = []
        for _ in engine.stream(prompt, SamplingParams(temperature=0.0, max_tokens=OUTPUT, ignore_eos=True)):
            times.append(time.perf_counter())
        decode = (len(times) - 1) / (times[-1] - times[0])
        prefill = []
        for _ in range(3):
            began = time.perf_counter()
            engine.generate([long], SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True))
            prefill.append(PREFILL / (time.perf_counter() - began))
        kv = sum(s.page_bytes for s in engine.manifest.states) * (-(-kv_tokens // 32))
        print(
            json.dumps(
                {
                    "load_s": load,
                    "decode_tokens_per_s": decode,
                    "prefill_tokens_per_s": sorted(prefill)[1],
                    "kv_bytes": kv,
                    "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                    "torch_loaded": any(m in sys.modules for m in ("torch", "transformers", "triton")),
                }
            )
        )


if __name__ == "__main__":
    main()
